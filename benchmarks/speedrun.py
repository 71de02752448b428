"""Trains experiments/cifar10_speedrun.py and the program that it follows, in turn, to compare accuracy and time.

    git clone https://github.com/KellerJordan/cifar10-airbench
    make .venv-certify/installed
    TFDS_DATA_DIR=... python benchmarks/speedrun.py cifar10-airbench/airbench94_muon.py [--examples 50000] [--seeds 3]
    TFDS_DATA_DIR=... python benchmarks/speedrun.py cifar10-airbench/airbench94_muon.py --device gpu --seeds 10

Both get the same images, batches and epochs. The original is written for a GPU: it is run as it stands, by PyTorch
on the CPU, with float16 replaced by --precision and its clock by the computer's, eagerly or compiled, whichever is the
faster in eight steps. Its time is what it counts itself: training and the last evaluation over six views, not
imports, reading of data, compilation nor evaluations between epochs. Ours is the whole of `convjax train` and of
`convjax eval --views flip_shift`, from the command to its end. Printed are both, and the mean accuracies.

On a GPU the original runs as it stands, compiled and in float16 (--torch names the interpreter that has PyTorch). There
a run takes seconds and compiling a minute, so that ours is timed as the original times itself: the steps and the last
evaluation, by the same functions as in `convjax train`, once all is compiled.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
from peers.cases import SYSTEMS, Device
from peers.process import environment

ROOT = Path(__file__).parents[1]
EXPERIMENT = ROOT / "experiments" / "cifar10_speedrun.py"
CONVJAX = Path(sys.executable).with_name("convjax")
TORCH = ROOT / ".venv-certify" / "bin" / "python"
BATCH = 2000
Runs: TypeAlias = dict[str, list[dict[str, Any]]]


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


def clocked(name: str, examples: int | None, seed: int) -> dict[str, Any]:
    """Returns what a run reached, and its seconds from whitening to the last evaluation, once all is compiled."""
    import jax

    from convjax.train.evaluate import Evaluator
    from convjax.train.experiment import load
    from convjax.train.plan import Plan, draws
    from convjax.train.prepare import equip, prepare
    from convjax.train.run import Run

    experiment = load(EXPERIMENT)
    config = dataclasses.replace(
        experiment,
        seed=seed,
        data=dataclasses.replace(experiment.data, name=name, examples=examples),
        model=dataclasses.replace(experiment.model, dtype="bfloat16"),
    )
    prepared = prepare(config, Run(Path("runs/none")), None)
    feeds, _, advance = equip(config, prepared)
    views = dataclasses.replace(prepared.step, views="flip_shift")
    info = prepared.data.info
    evaluator = Evaluator(views, info.class_names, config.train.batch_size, prepared.placement)
    drawn = draws(config, len(feeds["train"]))

    def run(steps: int) -> dict[str, Any]:
        began = time.perf_counter()
        state = advance.enter(prepared.initial(config))
        before = None
        for given in feeds["train"].batches(drawn.ids, 0, steps, drawn.epochs):
            state, metrics = advance(state, given)
            # As the training loop does it: while the device has the next step to do.
            if before is not None:
                advance.read(before)
            before = metrics
        jax.block_until_ready(state)
        trained = time.perf_counter() - began
        accuracy = evaluator("test", advance.leave(state), feeds["test"]).accuracy
        return {"accuracy": accuracy, "seconds": time.perf_counter() - began, "mode": f"{trained:.2f} s of training"}

    run(2)  # compiles
    return run(Plan.of(config, info).steps)


def on_cpu(arguments: argparse.Namespace, folder: Path) -> Runs:
    """Runs both in turn, seed by seed."""
    memory = environment(SYSTEMS["torch eager"])  # with the settings that convjax's commands give themselves
    options = flags(arguments.data, arguments.examples, arguments.batch, arguments.precision)
    found: Runs = {"original": [], "convjax": []}
    for seed in range(arguments.seeds):
        found["original"] += originals(arguments, folder, [seed], memory)
        found["convjax"].append(ours(options, seed, folder / f"run{seed}"))
        for name, runs in found.items():
            tell(name, seed, runs[-1])
    return found


def on_gpu(arguments: argparse.Namespace, folder: Path) -> Runs:
    """Runs all seeds of the original, and then all of ours."""
    seeds = range(arguments.seeds)
    found: Runs = {"original": originals(arguments, folder, seeds, {**os.environ})}
    for seed, run in enumerate(found["original"]):
        tell("original", seed, run)
    found["convjax"] = []
    for seed in seeds:
        found["convjax"].append(clocked(arguments.data, arguments.examples, seed))
        tell("convjax", seed, found["convjax"][-1])
    return found


def originals(
    arguments: argparse.Namespace, folder: Path, seeds: Iterable[int], variables: dict[str, str]
) -> list[dict[str, Any]]:
    command = [arguments.torch, "-m", "peers.airbench", arguments.original.resolve(), folder]
    command += [arguments.precision, str(arguments.batch), *map(str, seeds)]
    answer = subprocess.run(
        command, check=True, cwd=Path(__file__).parent, env=variables, stdout=subprocess.PIPE, text=True
    ).stdout
    return [json.loads(line) for line in answer.splitlines() if line.startswith("{")]


def tell(name: str, seed: int, run: dict[str, Any]) -> None:
    print(f"seed {seed}, {name}: {run['accuracy']:.4f}, {run['seconds']:.2f} s, {run['mode']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path, help="the original's airbench94_muon.py")
    parser.add_argument("--data", default="cifar10_jpeg")
    parser.add_argument("--examples", type=int, help="images to train on, by a fixed rule (default all)")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="on a CPU")
    parser.add_argument("--device", choices=get_args(Device), default="cpu")
    parser.add_argument("--torch", type=Path, default=TORCH, help="the interpreter that has PyTorch")
    arguments = parser.parse_args()
    if arguments.device == "gpu":
        if arguments.batch != BATCH:
            parser.error(f"--batch is {arguments.batch}: on a GPU it is {BATCH}")
        arguments.precision = "float16"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_data(arguments.data, arguments.examples, arguments.batch, folder)
        print(f"{count:,} images of {arguments.data}, batches of {arguments.batch}, {arguments.precision}", flush=True)
        found = (on_gpu if arguments.device == "gpu" else on_cpu)(arguments, folder)
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
