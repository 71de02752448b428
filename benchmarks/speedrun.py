"""Trains experiments/cifar10_speedrun.py and the program that it follows, in turn, to compare accuracy and time.

    git clone https://github.com/KellerJordan/cifar10-airbench
    make .venv-certify/installed
    TFDS_DATA_DIR=... python benchmarks/speedrun.py cifar10-airbench/airbench94_muon.py [--examples 50000] [--seeds 3]
    TFDS_DATA_DIR=... python benchmarks/speedrun.py cifar10-airbench/airbench94_muon.py --device gpu --seeds 10

Both get the same images, batches and epochs, and are timed as the original times itself: whitening, training, and the
last evaluation over six views of each test image; not imports, reading of data, compilation, nor evaluations between
epochs. Printed are both, and the mean accuracies.

The original is written for a GPU. On a CPU it is run as it stands, by PyTorch, with float16 replaced by --precision and
its clock by the computer's, eagerly or compiled, whichever is the faster in eight steps; the two take turns, seed by
seed. On a GPU it runs in float16, compiled once for all seeds, and ours in bfloat16.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from peers.cases import OURS, SYSTEMS, Device
from peers.process import environment, interpreter

ROOT = Path(__file__).parents[1]
EXPERIMENT = ROOT / "experiments" / "cifar10_speedrun.py"
TORCH = ROOT / ".venv-certify" / "bin" / "python"


def write_data(name: str, examples: int | None, batch: int, folder: Path) -> int:
    """Writes the images for the original, all of them and a batch alone, and returns how many are trained on."""
    from convjax.data import splits

    data = splits.load(name, directory=None, image_size=None, validation=0.0, examples=examples).splits
    for split in ("train", "test"):
        images, labels = np.asarray(data[split].images), np.asarray(data[split].labels)
        for part, few in (("all", None), ("few", batch)):
            directory = folder / part / "cifar10"
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / f"{split}.pt").open("wb") as file:  # the original looks for this name
                np.savez(file, images=images[:few], labels=labels[:few])
    return len(data["train"].labels)


def run(arguments: argparse.Namespace, folder: Path, system: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns accuracy, seconds and mode of runs of one side, in a process of its own."""
    if system == "original":
        variables = environment(SYSTEMS["torch eager"], arguments.device)
        command = [arguments.torch, "-m", "peers.airbench", arguments.original.resolve(), folder, arguments.device]
    else:
        variables = environment(SYSTEMS[OURS[arguments.device]], arguments.device)
        command = [sys.executable, "-m", "peers.airbench_convjax", EXPERIMENT, arguments.data]
        command += [str(arguments.examples or "all")]
    command += [arguments.precision[system], str(arguments.batch), *map(str, seeds)]
    answer = subprocess.run(
        command, check=True, cwd=Path(__file__).parent, env=variables, stdout=subprocess.PIPE, text=True
    ).stdout
    found = [json.loads(line) for line in answer.splitlines() if line.startswith("{")]
    for seed, one in zip(seeds, found, strict=True):
        print(f"seed {seed}, {system}: {one['accuracy']:.4f}, {one['seconds']:.2f} s, {one['mode']}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path, help="the original's airbench94_muon.py")
    parser.add_argument("--data", default="cifar10_jpeg")
    parser.add_argument("--examples", type=int, help="images to train on, by a fixed rule (default all)")
    parser.add_argument("--batch", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="on a CPU (default float32)"
    )
    parser.add_argument("--device", choices=get_args(Device), default="cpu")
    parser.add_argument("--torch", type=Path, default=TORCH, help="the interpreter that has PyTorch")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "gpu"
    arguments.torch = interpreter(parser, arguments.torch)
    if not arguments.original.is_file():
        parser.error(f"{arguments.original}: there is no such file; it is the original's airbench94_muon.py")
    if "TFDS_DATA_DIR" in os.environ:
        os.environ["TFDS_DATA_DIR"] = str(Path(os.environ["TFDS_DATA_DIR"]).absolute())
    arguments.precision = {
        "original": "float16" if on_gpu else arguments.precision,
        "convjax": "bfloat16" if on_gpu else arguments.precision,
    }
    found: dict[str, list[dict[str, Any]]] = {"original": [], "convjax": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_data(arguments.data, arguments.examples, arguments.batch, folder)
        precisions = " and ".join(sorted({*arguments.precision.values()}))
        print(f"{count:,} images of {arguments.data}, batches of {arguments.batch}, {precisions}", flush=True)
        seeds = range(arguments.seeds)
        for together in [seeds] if on_gpu else [[seed] for seed in seeds]:
            for system in found:
                found[system] += run(arguments, folder, system, together)
    print("\n| | accuracy, % | standard deviation | seconds |\n|---|---:|---:|---:|")
    for name, runs in found.items():
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f"{statistics.stdev(accuracies):.2f}" if len(runs) > 1 else "-"
        seconds = statistics.mean(run["seconds"] for run in runs)
        print(f"| {name} | {statistics.mean(accuracies):.2f} | {spread} | {seconds:.2f} |")
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found["original"], found["convjax"], strict=True)]
    print(
        f"\nThe original's time is {statistics.median(ratios):.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f})."
    )


if __name__ == "__main__":
    main()
