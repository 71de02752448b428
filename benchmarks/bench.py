"""Times convjax, stock Linen and PyTorch on the same networks, side by side, and writes docs/performance.md.

    make bench [NETWORKS="resnet20 ..."] [OPTIONS="--tasks train --rounds 3 ..."]
    python benchmarks/bench.py resnet50 --device gpu

Each system works in a process of its own. A round gives each of them a turn while the others wait, so that what else
the machine does meets all of them; a ratio is that of the medians of all rounds, with the least and the largest
of one round. What was measured takes the place of all that docs/performance.json held of the same network, task and
precision; the rest of it stays, so that a run may be stopped, and parts be measured alone. What a GPU did stands in
docs/performance_gpu.json.
"""

import argparse
import datetime
import os
import shutil
import sys
import time
from pathlib import Path
from typing import get_args

os.environ["JAX_PLATFORMS"] = "cpu"

from peers import epoch, machine, page
from peers.cases import NETWORKS, SYSTEMS, Case, Device, Precision, System, Task
from peers.convjax_side import work
from peers.measure import LEAST_SECONDS, measure
from peers.process import Failed, interpreter
from peers.results import Result, merged, read, results, write

from convjax.errors import UsageError

EPOCH = "epoch"
"""What is named as a network is, and times an epoch end to end."""
PARTS = (*NETWORKS, EPOCH)
EPOCH_ROUNDS = 3
"""The most of these: each starts every system twice."""
DOCS = Path(__file__).parents[1] / "docs"


DOCUMENT, EPOCHS = DOCS / "performance.md", DOCS / "performance_epoch.json"
STEPS: dict[Device, Path] = {"cpu": DOCS / "performance.json", "gpu": DOCS / "performance_gpu.json"}


def say(text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S}   {text}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(PARTS)} (default: all; the epoch is for CPUs)"
    )
    parser.add_argument("--tasks", nargs="+", choices=get_args(Task), default=get_args(Task))
    parser.add_argument("--precisions", nargs="+", choices=get_args(Precision), default=get_args(Precision))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="where to compute (default cpu)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each system (default 7)")
    parser.add_argument("--torch", default=sys.executable, help="the interpreter that has PyTorch (default: this one)")
    parser.add_argument("--resume", action="store_true", help="leave out cases that were measured here today")
    parser.add_argument("--no-write", dest="write", action="store_false", help="print only")
    options = parser.parse_args()
    parts = PARTS if options.device == "cpu" else tuple(NETWORKS)
    if unknown := set(options.networks) - set(parts):
        parser.error(f"there is no network {', '.join(sorted(unknown))}: choose from {', '.join(parts)}")
    options.networks = options.networks or parts
    measured = [name for name, system in SYSTEMS.items() if options.device in system.devices]
    if unknown := set(options.systems or ()) - set(measured):
        parser.error(
            f"there is no {', '.join(sorted(unknown))} on a {options.device}: choose from {', '.join(measured)}"
        )
    options.systems = options.systems or measured
    if options.device == "gpu" and not shutil.which("nvidia-smi"):
        parser.error("--device is gpu: there is no nvidia-smi here, which tells what NVIDIA GPU there is")
    options.torch = interpreter(parser, options.torch)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}: it must be at least 1")
    return options


def main() -> None:
    options = arguments()
    parts, steps = options.networks, STEPS[options.device]
    today, here = datetime.date.today().isoformat(), machine.describe(options.device)
    known = read(steps)
    cases = [
        Case(network, task, precision, options.device)
        for network in parts
        if network != EPOCH
        for task in options.tasks
        for precision in options.precisions
    ]
    chosen = {case: [SYSTEMS[n] for n in options.systems if SYSTEMS[n].measures(case)] for case in cases}
    if options.resume:
        done = {(*r.case, r.system) for r in known if (r.date, r.machine) == (today, here)}
        chosen = {
            case: systems
            for case, systems in chosen.items()
            if any((*case.key, system.name) not in done for system in systems)
        }
    estimates = [estimate(case, systems, options.rounds, known) for case, systems in chosen.items()]
    say(f"{len(chosen)} cases on {here}: about {sum(estimates) / 60:.0f} minutes")
    failed: list[str] = []
    for (case, systems), seconds in zip(chosen.items(), estimates, strict=True):
        say(f"== {case}: about {seconds / 60:.0f} minutes")
        began = time.perf_counter()
        try:
            found = measure(case, systems, options.rounds, options.torch, say)
        except Failed as failure:
            say(f"failed: {failure}")
            failed.append(str(case))
            continue
        new = results(case, found, work(case), today, here)
        for result in new:
            say(line(result))
        say(f"took {(time.perf_counter() - began) / 60:.1f} minutes")
        if options.write:
            # Read again: another run may have written meanwhile.
            write(steps, merged(read(steps), new))
            write_page()
    if EPOCH in parts:
        say("== an epoch end to end")
        try:
            names = [name for name in options.systems if name in epoch.KINDS]
            epochs = epoch.measure(names, min(options.rounds, EPOCH_ROUNDS), options.torch, today, here, say)
            if options.write:
                write(EPOCHS, epochs)
                write_page()
        except (Failed, UsageError) as failure:
            say(f"failed: {failure}")
            failed.append("an epoch end to end")
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def write_page() -> None:
    """Writes the tables of all that was ever measured into docs/performance.md."""
    text = page.insert(DOCUMENT.read_text(), page.tables(read(STEPS["cpu"]), epoch.read(EPOCHS)))
    DOCUMENT.write_text(page.insert(text, page.tables(read(STEPS["gpu"]), [], "gpu"), "gpu"))


def line(result: Result) -> str:
    """Returns what is printed of a result."""
    share = "" if result.share_of_peak is None else f", {result.share_of_peak:.0%} of peak"
    ratios = {"PyTorch": result.ratio_to_torch, "stock": result.ratio_to_linen}
    against = "".join(f", {ratio} x {name}" for name, ratio in ratios.items() if ratio is not None)
    return (
        f"{result.system:28} {result.median_s:8.4f} s {result.images_per_s:8.1f} images/s{share}"
        f"{against}, {result.peak_memory_bytes / 1e9:.2f} GB"
    )


def estimate(case: Case, systems: list[System], rounds: int, known: list[Result]) -> float:
    """Returns the seconds that a case may take, by what was measured of it before, else by a guess."""
    before = {r.system: r for r in known if r.case == case.key}
    total = 0.0
    for system in systems:
        past = before.get(system.name)
        first, step = (past.first_step_s, past.median_s) if past else (30.0, NETWORKS[case.network].guess)
        total += first + 3 * step + rounds * max(step, 1.5 * LEAST_SECONDS)
    return total


if __name__ == "__main__":
    main()
