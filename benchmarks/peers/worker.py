"""A process that runs one system on one case, step by step as it is told.

    python -m peers.worker SIDE MODE NETWORK TASK PRECISION

It writes one line of JSON when the first step is done, and one for each line that it reads: the number of steps to
take. It ends with its input.
"""

import importlib
import json
import os
import resource
import sys
import time


def main() -> None:
    side, mode, network, task, precision = sys.argv[1:]
    # What libraries print must not get in between.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from peers.cases import Case

    with importlib.import_module(f"peers.{side}").prepared(Case(network, task, precision), mode) as ready:  # type: ignore[arg-type]
        found = {"value": ready.step(), "parameters": ready.parameters}
        print(json.dumps(found), file=out, flush=True)
        for line in sys.stdin:
            seconds = []
            for _ in range(int(line)):
                start = time.perf_counter()
                value = ready.step()
                seconds.append(time.perf_counter() - start)
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps({"seconds": seconds, "value": value, "peak": peak}), file=out, flush=True)


if __name__ == "__main__":
    main()
