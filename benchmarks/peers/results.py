"""What was measured, as it is kept in a JSON file: one object for each network, task, precision and system."""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from peers.cases import SYSTEMS, Case
from peers.measure import Found, Measured, images_per_second

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STOCK = "linen"
"""The system that convjax's others are compared with: what a user of Flax has without convjax."""
STOCK_TUNED = "linen, same memory settings"


class Ratio(NamedTuple):
    """How many times as fast as another system: of the medians, and the least and the largest of one round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclasses.dataclass(frozen=True)
class Result:
    """Attributes:
    network, task, precision, system: what was measured.
    batch_size: images of a step.
    median_s: seconds of a step, the median of rounds.
    images_per_s: at that.
    peak_memory_bytes: the most that the process held, interpreter, libraries and compilation included; on a GPU, the
        most of the GPU's memory.
    share_of_peak: floating-point operations a second, as a share of what large matrix products reach.
    first_step_s: seconds from the start of the process to the end of its first step.
    ratio_to_torch: to the faster of PyTorch's modes; None where none was measured.
    ratio_to_linen: to stock Linen; None where it was not measured.
    rounds: how many.
    date: day of the measurement.
    machine: where.
    """

    network: str
    task: str
    precision: str
    system: str
    batch_size: int
    median_s: float
    images_per_s: float
    peak_memory_bytes: int
    share_of_peak: float | None
    first_step_s: float
    ratio_to_torch: Ratio | None
    ratio_to_linen: Ratio | None
    rounds: int
    date: str
    machine: str

    @property
    def case(self) -> tuple[str, str, str]:
        return self.network, self.task, self.precision


def results(case: Case, found: Found, work: float, date: str, machine: str) -> list[Result]:
    """Returns the results of a case.

    Args:
        case: what was measured.
        found: what systems took.
        work: floating-point operations of a step.
        date: of today.
        machine: this one.
    """
    peers = [measured for name, measured in found.systems.items() if SYSTEMS[name].torch]
    torch = min(peers, key=lambda measured: measured.median, default=None)
    linen = found.systems.get(STOCK)
    return [
        Result(
            network=case.network,
            task=case.task,
            precision=case.precision,
            system=name,
            batch_size=case.batch,
            median_s=measured.median,
            images_per_s=images_per_second(case, measured.median),
            peak_memory_bytes=measured.peak_memory,
            share_of_peak=None if math.isnan(found.peak_flops) else work / measured.median / found.peak_flops,
            first_step_s=measured.first_step,
            ratio_to_torch=_ratio(torch, measured),
            ratio_to_linen=_ratio(linen, measured),
            rounds=len(measured.rounds),
            date=date,
            machine=machine,
        )
        for name, measured in found.systems.items()
    ]


def _ratio(of: Measured | None, to: Measured) -> Ratio | None:
    if of is None:
        return None
    each = [a / b for a, b in zip(of.rounds, to.rounds, strict=True)]
    return Ratio(statistics.median(of.rounds) / statistics.median(to.rounds), min(each), max(each))


def read(path: Path) -> list[Result]:
    """Returns the results in a file; none where there is no file."""
    if not path.exists():
        return []
    found = []
    for fields in json.loads(path.read_text()):
        ratios: dict[str, Any] = {
            name: None if fields[name] is None else Ratio(*fields[name])
            for name in ("ratio_to_torch", "ratio_to_linen")
        }
        found.append(Result(**{**fields, **ratios}))
    return found


def merged(old: Sequence[Result], new: Sequence[Result]) -> list[Result]:
    """Returns all results, but none of the old ones of a case that was measured anew.

    What did not take turns with the others is not to stand beside them: the machine may have been faster that day.
    """
    anew = {result.case for result in new}
    return [*(result for result in old if result.case not in anew), *new]


def write(path: Path, every: "Sequence[DataclassInstance]") -> None:
    """Writes dataclasses as a list of objects, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(json.dumps(dataclasses.asdict(result)) for result in every) + "\n]\n")
    part.replace(path)
