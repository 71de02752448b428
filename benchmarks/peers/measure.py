"""Runs the systems of one case in turn, and keeps what they took."""

import contextlib
import dataclasses
import math
import random
import statistics
from collections.abc import Callable, Sequence

from peers.cases import MATRIX, MATRIX_MULTIPLY, Case, System
from peers.process import Failed, Process

LEAST_SECONDS = 2.0
"""How long a system works in one round: the first steps after a pause are slower, and those of training come after no
pause."""
MOST_STEPS = 400


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one system took on one case.

    Attributes:
        rounds: seconds of a step, the median of each round.
        peak_memory: bytes.
        first_step: seconds from the start of the process.
    """

    rounds: tuple[float, ...]
    peak_memory: int
    first_step: float

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


@dataclasses.dataclass(frozen=True)
class Found:
    """Attributes:
    systems: what each took, by name.
    peak_flops: multiplications and additions a second of large matrix products in the case's precision.
    """

    systems: dict[str, Measured]
    peak_flops: float


def measure(case: Case, systems: Sequence[System], rounds: int, torch: str, say: Callable[[str], None]) -> Found:
    """Measures systems on a case; those that fail before the first round are told of and left out.

    Raises:
        Failed: the networks of two systems have not as many parameters, or one fails later.
    """
    with contextlib.ExitStack() as stack:
        running: dict[str, Process] = {}
        counts: dict[str, int] = {}
        for system in (*systems, MATRIX_MULTIPLY):
            try:
                process = stack.enter_context(Process(system, case, torch))
                process.steps(1)  # the second step may still allocate
                # Before steps take as long as they will, some must have been taken.
                usual = statistics.median(process.steps(2))
            except Failed as failure:
                say(f"left out: {failure}")
                continue
            running[system.name] = process
            counts[system.name] = max(1, min(MOST_STEPS, math.ceil(LEAST_SECONDS / usual)))
            say(f"{system.name}: first step after {process.first_step:.1f} s, then about {usual:.4f} s")
        _require_same_size({name: p.parameters for name, p in running.items() if name != MATRIX_MULTIPLY.name})
        taken: dict[str, list[float]] = {name: [] for name in running}
        names, shuffled = [*running], random.Random(0)
        for i in range(rounds):
            # Each round in another order: whoever follows a hard worker may find the processor hot.
            for name in shuffled.sample(names, len(names)):
                taken[name].append(statistics.median(running[name].steps(counts[name])))
            say(f"round {i + 1} of {rounds}")
        products = taken.pop(MATRIX_MULTIPLY.name, [math.nan])
        found = {
            name: Measured(tuple(seconds), running[name].peak, running[name].first_step)
            for name, seconds in taken.items()
        }
    return Found(found, 2 * MATRIX[case.device] ** 3 / min(products))


def _require_same_size(parameters: dict[str, int]) -> None:
    if len(set(parameters.values())) > 1:
        raise Failed(f"these are not the same networks, by their number of parameters: {parameters}")


def images_per_second(case: Case, seconds: float) -> float:
    """Returns how many images a system does that takes so long for a step."""
    return case.batch / seconds
