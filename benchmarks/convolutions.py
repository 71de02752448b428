"""What bounds the ratio to PyTorch: how much of each side's step are convolutions and products of matrices.

    python benchmarks/convolutions.py [NETWORK ...] [--torch .venv-certify/bin/python] [--write]

For each network, task and precision: milliseconds of a step, and in brackets those of its products, of convjax's
native kernels and of PyTorch's mode that was the faster in docs/performance.json, measured once, one after the other;
and PyTorch's step as a multiple of our products alone, which is what convjax would reach if nothing else took time. In
inference our products include what oneDNN does to their results at once. --write puts the table into
docs/performance.md.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

from peers import page
from peers.cases import NETWORKS, OURS, SYSTEMS, Case, Precision, System, Task
from peers.process import Failed, completed, environment, interpreter
from peers.results import read

DOCS = Path(__file__).parents[1] / "docs"
MARK = "<!-- table of convolutions -->"
HEADER = "| | convjax, ms | PyTorch, ms | at most |\n|---|---:|---:|---:|\n"


def traced(system: System, case: Case, torch: str) -> dict[str, float]:
    """Returns the seconds of a system's step, and of the products in it."""
    command = [torch if system.torch else sys.executable, "-m", "peers.traced", system.side, system.mode, *case.key]
    answer: Any = json.loads(completed(system.name, command, environment(system)))
    if not answer["products"]:
        raise Failed(f"{system.name}: its profiler tells of no products")
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--torch", default=sys.executable, help="the interpreter that has PyTorch (default: this one)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(NETWORKS):
        parser.error(f"there is no network {', '.join(sorted(unknown))}: choose from {', '.join(NETWORKS)}")
    if options.write and options.networks:
        parser.error("--write is for the table of all networks")
    options.torch = interpreter(parser, options.torch)
    measured = read(DOCS / "performance.json")
    lines, failed = [HEADER], list[str]()
    print(HEADER, end="")
    for task in get_args(Task):
        for precision in get_args(Precision):
            for network in options.networks or NETWORKS:
                case = Case(network, task, precision)
                try:
                    lines.append(line(case, best(case, measured), options.torch))
                    print(lines[-1], end="", flush=True)
                except Failed as failure:
                    failed.append(f"{case}: {failure}")
    if failed:
        sys.exit("\n".join(failed))
    if options.write:
        document = DOCS / "performance.md"
        document.write_text(page.between(document.read_text(), MARK, "".join(lines)))


def best(case: Case, measured: list[Any]) -> System:
    """Returns PyTorch's mode that was the faster; one of them where none was measured."""
    modes = [name for name, system in SYSTEMS.items() if system.torch and system.measures(case)]
    taken = {r.system: r.median_s for r in measured if r.case == case.key}
    return SYSTEMS[min(modes, key=lambda name: taken.get(name, float("inf")))]


def line(case: Case, peer: System, torch: str) -> str:
    ours, theirs = (traced(system, case, torch) for system in (SYSTEMS[OURS["cpu"]], peer))
    cells = (
        str(case),
        *(f"{1e3 * side['step']:.1f} ({1e3 * side['products']:.1f})" for side in (ours, theirs)),
        f"{theirs['step'] / ours['products']:.2f}",
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    main()
