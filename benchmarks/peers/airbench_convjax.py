"""experiments/cifar10_speedrun.py, timed as the program that it follows times itself.

    python -m peers.airbench_convjax EXPERIMENT DATA EXAMPLES PRECISION BATCH SEED [SEED ...]

EXAMPLES is how many images to train on; all takes them all.

Prints an object of JSON for each seed: accuracy over six views, seconds from whitening to the last evaluation once all
is compiled, and how many of these the training took.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from convjax import compiled
from convjax.ops import cpu
from convjax.train import experiment
from convjax.train.config import Config
from convjax.train.evaluate import Evaluator
from convjax.train.from_images import computed
from convjax.train.plan import Plan, draws
from convjax.train.prepare import equip, prepare
from convjax.train.run import Run
from peers import loop


def configured(base: Config, *, data: str, examples: int | None, precision: str, batch: int, seed: int) -> Config:
    """Returns the experiment for other data and batches; its rates of biases and head are for sums over a batch."""
    factor = batch / base.train.batch_size
    pairs = (rate.split("=") for rate in base.optim.rates)
    return dataclasses.replace(
        base,
        seed=seed,
        data=dataclasses.replace(base.data, name=data, examples=examples),
        model=base.model.clone(dtype=precision),
        train=dataclasses.replace(base.train, batch_size=batch),
        optim=dataclasses.replace(
            base.optim,
            rates=tuple(f"{pattern}={float(value) * factor:.9g}" for pattern, value in pairs),
            weight_decay=base.optim.weight_decay * factor,
        ),
    )


def clocked(config: Config) -> dict[str, Any]:
    """Trains and evaluates as `convjax train` and `convjax eval --views flip_shift` do, and looks at the clock."""
    with tempfile.TemporaryDirectory() as directory:
        prepared = prepare(config, Run(Path(directory) / "run"), None)
    feeds, _, advance = equip(config, prepared)
    info, views = prepared.data.info, dataclasses.replace(prepared.step, views="flip_shift")
    evaluator = Evaluator(views, info.class_names, config.train.batch_size, prepared.placement)
    drawn = draws(config, len(feeds["train"]))

    def run(steps: int) -> dict[str, Any]:
        state = jax.block_until_ready(advance.enter(prepared.initial(config)))
        began = time.perf_counter()
        # Once more, for the clock: the initial state holds it, but is traced and drawn besides.
        computed(config, prepared.data.splits["train"], prepared.step.normalise)
        batches = feeds["train"].batches(drawn.ids, 0, steps, drawn.epochs)
        state = loop.steps(advance, advance.read, state, batches)
        trained = time.perf_counter() - began
        accuracy = evaluator("test", advance.leave(state), feeds["test"]).accuracy
        return {"accuracy": accuracy, "seconds": time.perf_counter() - began, "mode": f"{trained:.2f} s of training"}

    with cpu.switched_on():
        run(2)  # compiles
        return run(Plan.of(config, info).steps)


def main() -> None:
    file, data, examples, precision, batch, *seeds = sys.argv[1:]
    compiled.keep()
    base = experiment.load(Path(file))
    for seed in map(int, seeds):
        count = None if examples == "all" else int(examples)
        config = configured(base, data=data, examples=count, precision=precision, batch=int(batch), seed=seed)
        print(json.dumps(clocked(config)), flush=True)


if __name__ == "__main__":
    main()
