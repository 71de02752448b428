"""A process that runs one system on one case, step by step as it is told.

    python -m peers.worker SIDE MODE NETWORK TASK PRECISION DEVICE

It writes one line of JSON when the first step is done, and one for each line that it reads: the number of steps to
take. It ends with its input. On a CPU each step is waited for; on a GPU they are handed over one after the other, as
training loops do, and the last one is waited for.
"""

import importlib
import json
import re
import sys
import time
from pathlib import Path

from peers.cases import Case
from peers.side import answers


def main() -> None:
    side, mode, network, task, precision, device = sys.argv[1:]
    out = answers()
    case = Case(network, task, precision, device)  # type: ignore[arg-type]
    with importlib.import_module(f"peers.{side}").prepared(case, mode) as ready:
        found = {"value": ready.wait(ready.step()), "parameters": ready.parameters}
        print(json.dumps(found), file=out, flush=True)
        for line in sys.stdin:
            count = int(line)
            at_once = count if device == "gpu" else 1
            seconds = []
            for _ in range(count // at_once):
                start = time.perf_counter()
                for _ in range(at_once):
                    computed = ready.step()
                value = ready.wait(computed)
                seconds.append((time.perf_counter() - start) / at_once)
            peak = ready.peak() if ready.peak else held_at_most()
            print(json.dumps({"seconds": seconds, "value": value, "peak": peak}), file=out, flush=True)


def held_at_most() -> int:
    """Returns the most bytes that this program had in memory; `getrusage` counts those of whoever started it, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
