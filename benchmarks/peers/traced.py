"""A process that tells how long a step takes on a CPU, and its convolutions and products of matrices of that.

    python -m peers.traced SIDE MODE NETWORK TASK PRECISION

It writes one line of JSON: seconds of a step, the median of some, and those of the products in it: their share of some
more steps, taken under the profiler of PyTorch or of JAX, times that median, since the profiler slows steps down.
"""

import importlib
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peers.cases import Case
from peers.side import answers

LEAST_SECONDS, MOST_STEPS = 2.0, 50


def main() -> None:
    side, mode, network, task, precision = sys.argv[1:]
    out = answers()
    case = Case(network, task, precision)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={directory} --xla_dump_hlo_as_text"
        with importlib.import_module(f"peers.{side}").prepared(case, mode) as ready:

            def step() -> float:
                began = time.perf_counter()
                ready.wait(ready.step())
                return time.perf_counter() - began

            usual = [step() for _ in range(4)][-1]
            count = max(5, min(MOST_STEPS, math.ceil(LEAST_SECONDS / usual)))
            seconds = statistics.median(step() for _ in range(count))
            share = (by_torch if side == "torch_side" else by_xla)(step, count, Path(directory))
    print(json.dumps({"step": seconds, "products": share * seconds}), file=out, flush=True)


def by_torch(step: Callable[[], float], count: int, directory: Path) -> float:
    """Returns the share of steps in operations that are products, by their names."""
    del directory
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        whole = sum(step() for _ in range(count))
    taken = (event for event in profile.key_averages() if re.search(r"conv|linear|addmm|\bmm\b", event.key))
    return sum(event.self_cpu_time_total for event in taken) / 1e6 / whole


def by_xla(step: Callable[[], float], count: int, directory: Path) -> float:
    """Returns the share of steps in which an instruction that is a product ran."""
    from convjax.profile import trace

    with trace.looking_on(directory):
        whole = sum(step() for _ in range(count))
    # The step is the program that has most of them; others that were compiled may have instructions of the same names.
    names = max((products(file.read_text()) for file in directory.glob("*after_optimizations.txt")), key=len)
    return sum(trace.busy(trace.read(directory), names).values()) / whole


def products(program: str) -> set[str]:
    """Returns the names of a compiled program's instructions that are convolutions or products of matrices."""
    from convjax.profile import trace

    found, inside, fusions = set[str](), set[str](), dict[str, str]()
    for instruction in trace.instructions(program):
        if instruction.kind in ("convolution", "dot") or 'custom_call_target="convjax_convolve"' in instruction.text:
            found.add(instruction.name)
            inside.add(instruction.computation)
        elif instruction.kind == "fusion":
            fusions[instruction.name] = instruction.called
    return found | {name for name, called in fusions.items() if called in inside}


if __name__ == "__main__":
    main()
