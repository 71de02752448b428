"""Trains experiments/cifar10_speedrun.py and the program that it follows, in turn, to compare accuracy and time.

    git clone https://github.com/KellerJordan/cifar10-airbench
    make .venv-certify/installed
    TFDS_DATA_DIR=... python benchmarks/speedrun.py cifar10-airbench/airbench94_muon.py [--examples 50000] [--seeds 3]

Both get the same images, batches and epochs. The original is written for a GPU: it is run as it stands, by PyTorch
on the CPU, with float16 replaced by --precision and its clock by the computer's, eagerly or compiled, whichever is the
faster in eight steps. Its time is what it counts itself: training and the last evaluation over six views, not
imports, reading of data, compilation nor evaluations between epochs. Ours is the whole of `convjax train` and of
`convjax eval --views flip_shift`, from the command to its end. Printed are both, and the mean accuracies.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.cases import SYSTEMS
from peers.process import environment

ROOT = Path(__file__).parents[1]
EXPERIMENT = ROOT / "experiments" / "cifar10_speedrun.py"
CONVJAX = Path(sys.executable).with_name("convjax")
TORCH = ROOT / ".venv-certify" / "bin" / "python"


def original(script: Path, folder: Path, precision: str, batch: int, seed: int) -> None:
    """Runs the original once, in this process, and prints its accuracy, its seconds and how it was run."""
    import torch

    dtype = getattr(torch, precision)
    torch.Tensor.half = lambda tensor: tensor.to(dtype)
    torch.nn.Module.half = lambda module: module.to(dtype)
    torch.nn.Module.cuda = lambda module: module
    torch.load = lambda path, map_location: _tensors(path)
    torch.cuda.Event = _Event
    torch.cuda.synchronize = lambda: None
    source, size = script.read_text(), "batch_size = 2000"
    if source.count(size) != 1:
        sys.exit(f"{script} has no line {size!r}: is it airbench94_muon.py?")
    program: dict[str, Any] = {"__name__": "original"}
    exec(compile(source.replace(size, f"batch_size = {batch}"), str(script), "exec"), program)
    seconds, evaluate = [0.0], program["evaluate"]

    def note(variables: dict[str, Any], is_final_entry: bool) -> None:
        seconds[0] = variables["time_seconds"]

    program["print_training_details"] = note
    program["evaluate"] = lambda *args, tta_level: evaluate(*args, tta_level=tta_level) if tta_level else float("nan")

    def run(model: Any, data: str) -> float:
        os.chdir(folder / data)
        return float(program["main"](seed, model))

    found = {}
    for mode in ("eager", "compiled"):
        torch.manual_seed(seed)
        model = program["CifarNet"]().to(memory_format=torch.channels_last)
        if mode == "compiled":
            model.compile()
        run(model, "few")  # compiles
        run(model, "few")
        found[seconds[0]] = mode, model
    mode, model = found[min(found)]
    torch.manual_seed(seed)
    print(json.dumps({"accuracy": run(model, "all"), "seconds": seconds[0], "mode": mode}))


def _tensors(path: str) -> dict[str, Any]:
    """Reads what `write_data` wrote, as the original's own file has it."""
    import torch

    with np.load(path) as arrays:
        return {
            "images": torch.tensor(arrays["images"]),
            "labels": torch.tensor(arrays["labels"]).long(),
            "classes": [],
        }


class _Event:
    """Stands for an event of CUDA's, by the computer's clock."""

    def __init__(self, enable_timing: bool) -> None: ...

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def elapsed_time(self, end: "_Event") -> float:
        return 1e3 * (end.seconds - self.seconds)


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


def flags(name: str, examples: int | None, batch: int, precision: str) -> list[str]:
    """Returns the experiment's options for other data and batches; its rates of biases and head are for sums."""
    from convjax.train.experiment import load

    config = load(EXPERIMENT)
    factor = batch / config.train.batch_size
    pairs = (rate.split("=") for rate in config.optim.rates)
    return [
        *("--data.name", name, "--data.examples", str(examples), "--train.batch-size", str(batch)),
        *("--optim.rates", *(f"{pattern}={float(value) * factor:.9g}" for pattern, value in pairs)),
        *("--optim.weight-decay", f"{config.optim.weight_decay * factor:.9g}", "--model.dtype", precision),
    ]


def ours(options: list[str], seed: int, directory: Path) -> dict[str, Any]:
    begin = time.perf_counter()
    command = [str(CONVJAX), "train", str(EXPERIMENT), "--workdir", str(directory), "--seed", str(seed), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    trained = time.perf_counter()
    command = [str(CONVJAX), "eval", str(directory), "--checkpoint", "latest", "--views", "flip_shift", "--json"]
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    end = time.perf_counter()
    return {"accuracy": answer["accuracy"], "seconds": end - begin, "mode": f"{trained - begin:.0f} s of training"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path, help="the original's airbench94_muon.py")
    parser.add_argument("--data", default="cifar10_jpeg")
    parser.add_argument("--examples", type=int, help="images to train on, by a fixed rule (default all)")
    parser.add_argument("--batch", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    script = arguments.original.resolve()
    if arguments.seed is not None:
        original(script, arguments.folder, arguments.precision, arguments.batch, arguments.seed)
        return
    memory = environment(SYSTEMS["torch eager"])  # with the settings that convjax's commands give themselves
    found: dict[str, list[dict[str, Any]]] = {"original": [], "convjax": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_data(arguments.data, arguments.examples, arguments.batch, folder)
        options = flags(arguments.data, arguments.examples, arguments.batch, arguments.precision)
        print(f"{count:,} images of {arguments.data}, batches of {arguments.batch}, {arguments.precision}", flush=True)
        for seed in range(arguments.seeds):
            command = [TORCH, __file__, script, "--folder", folder, "--seed", str(seed), *sys.argv[2:]]
            answer = subprocess.run(command, check=True, env=memory, stdout=subprocess.PIPE, text=True).stdout
            found["original"].append(json.loads(answer.splitlines()[-1]))
            found["convjax"].append(ours(options, seed, folder / f"run{seed}"))
            for name, runs in found.items():
                run = runs[-1]
                print(f"seed {seed}, {name}: {run['accuracy']:.4f}, {run['seconds']:.0f} s, {run['mode']}", flush=True)
    print("\n| | accuracy, % | standard deviation | seconds |\n|---|---:|---:|---:|")
    for name, runs in found.items():
        accuracies = [100 * run["accuracy"] for run in runs]
        spread = f"{statistics.stdev(accuracies):.2f}" if len(runs) > 1 else "-"
        seconds = statistics.mean(run["seconds"] for run in runs)
        print(f"| {name} | {statistics.mean(accuracies):.2f} | {spread} | {seconds:.0f} |")
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found["original"], found["convjax"], strict=True)]
    print(
        f"\nThe original's time is {statistics.median(ratios):.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f})."
    )


if __name__ == "__main__":
    main()
