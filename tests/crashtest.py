"""Kills the real training command at random moments, and compares what comes out with runs that nobody killed.

    python tests/crashtest.py [--kills 30] [--seed 0] [--write docs/reliability.md]

Each run is started, killed by SIGKILL after a random time, and started again by the same command until it
finishes. Its metrics file, its result and the digest of every array in its checkpoints must then equal, to the
bit, those of a run of the same configuration that was left alone. The process is held by SIGSTOP just before it
is killed, so that its stack tells which phase the kill falls in.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PHASES = ("start", "compile", "step", "evaluation", "save")
TEMPORARY = ".orbax-checkpoint-tmp"
MARKS = ("<!-- kills: begin -->", "<!-- kills: end -->")

EXPERIMENT = """
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.models import CifarResNet, DenseNet
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

models = {{
    "residual": CifarResNet(depth=8, width=8, drop_path=0.2, dtype="{dtype}"),
    "dense": DenseNet(block_sizes=(1, 1), growth=8, stem_features=16, stem="cifar", dropout=0.2, dtype="{dtype}"),
}}
config = Config(
    model=models["{model}"],
    data=DataConfig(
        "digits", validation=0.5, feed="{feed}", augment=Augment(RandomCrop(1), HorizontalFlip(0.5))
    ),
    optim=OptimConfig(lr=0.05, warmup="20 steps"),
    train=TrainConfig(
        length="{steps} steps", batch_size=128, label_smoothing=0.1, ema=0.95,
        evaluate_every="10 steps", checkpoint_every="25 steps", log_every=1,
    ),
)
"""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One kind of run."""

    model: str
    feed: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.model}, {self.feed}, {self.dtype}"


VARIANTS = (
    Variant("residual", "resident", "float32"),
    Variant("dense", "streamed", "float32"),
    Variant("residual", "streamed", "bfloat16"),
    Variant("dense", "resident", "bfloat16"),
)


@dataclasses.dataclass
class Kill:
    """Attributes:
    variant: of the run.
    seconds: from the start of the process to the kill.
    phase: what the process was doing.
    resumed: step that the next process went on from; 0 from the beginning.
    identical: whether the run ended in the same bits, None before that is known.
    """

    variant: Variant
    seconds: float
    phase: str
    resumed: int | None = None
    identical: bool | None = None


def start(experiment: Path, workdir: Path) -> "subprocess.Popen[bytes]":
    """Starts the real command; its output is appended to `<workdir>.log`.

    Nothing that was compiled is kept: each start compiles as long as the first one did, and may be killed in it.
    """
    environment = {**os.environ, "CONVJAX_COMPILATION_CACHE": "off"}
    with workdir.with_suffix(".log").open("ab") as log:
        command: list[str | Path] = [BIN / "convjax", "train", experiment, "--workdir", workdir]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def stop_and_look(process: "subprocess.Popen[bytes]") -> list[tuple[str, str]]:
    """Stops a process, and returns file and function of each frame of its main thread; none while Python starts."""
    dump: list[str | Path] = [BIN / "py-spy", "dump", "--nonblocking", "--json", "--pid", str(process.pid)]
    for _ in range(50):
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT | os.WEXITED)
        done = subprocess.run(dump, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            threads: list[dict[str, Any]] = json.loads(done.stdout)
            main = [thread for thread in threads if thread["os_thread_id"] == process.pid]
            frames = main[0]["frames"] if main else []
            return [(Path(frame["filename"]).name, frame["name"].rpartition(".")[2]) for frame in frames]
        # The stack was just being changed: a moment later it is whole.
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.001)
    return []


def phase(frames: list[tuple[str, str]], saving: bool) -> str:
    """Says what a process was doing."""
    files = {file for file, _ in frames}
    if files & {"compiler.py", "pxla.py", "mlir.py", "partial_eval.py", "stages.py"}:
        what = "compile"
    elif ("evaluate.py", "__call__") in frames:
        what = "evaluation"
    elif files & {"checkpoint.py"} and {name for file, name in frames if file == "checkpoint.py"} & {"save", "wait"}:
        return "save"
    elif ("loop.py", "run") in frames:
        what = "step"
    else:
        return "start"
    return f"{what}, saving" if saving else what


def kill_after(seconds: float, experiment: Path, workdir: Path) -> str | None:
    """Starts the command and kills it; returns the phase, or None if it finished before."""
    unfinished = f"checkpoints/*{TEMPORARY}"
    before = set(workdir.glob(unfinished))
    process = start(experiment, workdir)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        frames = stop_and_look(process)
        fell_in = phase(frames, saving=bool(set(workdir.glob(unfinished)) - before))
        process.kill()
        process.wait()
        return fell_in
    assert code == 0, workdir.with_suffix(".log").read_text()
    return None


def bits(workdir: Path) -> dict[str, Any]:
    """Returns all of a finished run that must not depend on kills."""
    records = workdir.glob("checkpoints/*/record/metadata")
    arrays = {path.parents[1].name: json.loads(path.read_text())["arrays"] for path in records}
    result = json.loads((workdir / "result.json").read_text())
    # Which earlier checkpoints are still there depends on when they were saved; the last and the best must be.
    kept = {step: arrays[step] for step in (max(arrays, key=int), str(result["checkpoint"]))}
    return {"metrics": (workdir / "metrics.jsonl").read_text(), "result": result, "arrays": kept}


def going_on(workdir: Path) -> list[int]:
    """Returns the steps that the processes of a run went on from, as they said."""
    return [
        int(step) for step in re.findall(r"^going on from step (\d+)", workdir.with_suffix(".log").read_text(), re.M)
    ]


def crash_run(
    variant: Variant, steps: int, directory: Path, reference: dict[str, Any], draw: random.Random, longest: float
) -> list[Kill]:
    """Kills one run until it finishes; returns the kills, each told whether the run ended in the same bits."""
    experiment, workdir = write_experiment(variant, steps, directory), directory / f"killed-{draw.getrandbits(32):08x}"
    kills: list[Kill] = []
    while True:
        seconds = draw.uniform(0, longest)
        before = len(going_on(workdir)) if kills else 0
        fell_in = kill_after(seconds, experiment, workdir)
        said = going_on(workdir)
        if kills and len(said) > before:
            kills[-1].resumed = said[-1]
        if fell_in is None:
            break
        kills.append(Kill(variant, seconds, fell_in))
    identical = bits(workdir) == reference
    return [dataclasses.replace(kill, identical=identical) for kill in kills]


def write_experiment(variant: Variant, steps: int, directory: Path) -> Path:
    path = directory / f"{variant.model}_{variant.feed}_{variant.dtype}.py"
    path.write_text(EXPERIMENT.format(**dataclasses.asdict(variant), steps=steps))
    return path


def undisturbed(variant: Variant, steps: int, directory: Path) -> tuple[dict[str, Any], float]:
    """Returns the bits of a run that is left alone, and the seconds it takes."""
    experiment = write_experiment(variant, steps, directory)
    workdir = directory / f"alone-{experiment.stem}"
    began = time.monotonic()
    assert start(experiment, workdir).wait() == 0, workdir.with_suffix(".log").read_text()
    return bits(workdir), time.monotonic() - began


def table(kills: list[Kill]) -> str:
    rows = ["| kill | run | after | fell in | went on from step | identical |", "|---:|---|---:|---|---:|---|"]
    for number, kill in enumerate(kills, start=1):
        verdict = "yes" if kill.identical else "NO"
        resumed = "" if kill.resumed is None else kill.resumed
        rows.append(f"| {number} | {kill.variant} | {kill.seconds:.2f} s | {kill.phase} | {resumed} | {verdict} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="kills at least (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="decides on the moments (default 0)")
    parser.add_argument("--steps", type=int, default=400, help="length of each run (default 400)")
    parser.add_argument("--write", type=Path, help="file in which to put the table between the marks for it")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as directory:
        references: dict[Variant, tuple[dict[str, Any], float]] = {}
        while len(kills) < arguments.kills or {k.variant for k in kills} != set(VARIANTS):
            variant = (
                VARIANTS[len(references) % len(VARIANTS)] if len(references) < len(VARIANTS) else draw.choice(VARIANTS)
            )
            if variant not in references:
                references[variant] = undisturbed(variant, arguments.steps, Path(directory))
                print(f"{variant}: left alone {references[variant][1]:.1f} s", flush=True)
            reference, longest = references[variant]
            new = crash_run(variant, arguments.steps, Path(directory), reference, draw, longest)
            kills += new
            fell = Counter(kill.phase for kill in new)
            verdict = "identical" if all(kill.identical for kill in new) else "NOT IDENTICAL"
            print(
                f"{variant}: {len(new)} kills, {', '.join(f'{n} in {p}' for p, n in fell.items())}: {verdict}",
                flush=True,
            )
    fell = Counter(kill.phase.removesuffix(", saving") for kill in kills)
    saving = sum(kill.phase.endswith("saving") for kill in kills)
    phases = ", ".join(f"{fell[name]} in {name}" for name in PHASES)
    summary = (
        f"{len(kills)} kills with seed {arguments.seed} ({phases}; {saving} of them while a save was in flight), "
        f"{sum(bool(kill.identical) for kill in kills)} in runs that ended in the same bits."
    )
    print(f"\n{table(kills)}\n\n{summary}")
    if arguments.write:
        before, _, rest = arguments.write.read_text().partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        arguments.write.write_text(f"{before}{MARKS[0]}\n{summary}\n\n{table(kills)}\n{MARKS[1]}{after}")
    return 0 if all(kill.identical for kill in kills) else 1


if __name__ == "__main__":
    sys.exit(main())
