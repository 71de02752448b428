"""The average of a run's last checkpoints (Izmailov et al. 2018, arXiv:1803.05407)."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convjax.data import loader
from convjax.data.order import Draws
from convjax.data.sources import Split
from convjax.errors import UsageError
from convjax.ops import cpu
from convjax.train.checkpoint import Checkpoints
from convjax.train.evaluate import Trained
from convjax.train.run import Run
from convjax.train.weights import Weights, of_trained

Statistics: TypeAlias = Literal["recompute", "average"]
"""Where the statistics of batch norms come from: the training examples, or the checkpoints as the weights do."""


def average(run: Run, last: int) -> tuple[Trained, tuple[int, ...]]:
    """Returns the mean of the last checkpoints' weights and batch statistics, and the checkpoints' steps.

    Summed in float64. Of a run with moving averages, it is the weights themselves that are averaged.

    Raises:
        UsageError: there is no run, or not so many of its latest checkpoints have been kept.
        RunError: one is damaged.
    """
    trained = Trained.read(run, "latest")
    kept = trained.config.train.keep
    with Checkpoints(run.checkpoints, {}, read_only=True) as checkpoints:
        steps = checkpoints.steps()[-last:]
        if last > kept or len(steps) < last:
            there = f"the run has {len(checkpoints.steps())} checkpoints" if last <= kept else f"train.keep is {kept}"
            raise UsageError(
                f"--last is {last}, and {there}: so many of the latest checkpoints have not been kept. Train with "
                f"--train.keep {max(last, kept)} (also when a run goes on), and with --train.checkpoint-every or "
                "--train.evaluate-every as far apart as the checkpoints are to be"
            )
        total: Any = None
        for step in steps:
            state = checkpoints.restore(step, trained.state).state
            found = jax.tree.map(lambda x: np.asarray(x, np.float64), (state.params, state.batch_stats))
            total = found if total is None else jax.tree.map(np.add, total, found)
    params, batch_stats = _means(total, last)
    state = trained.state.replace(params=params, batch_stats=batch_stats, ema={})
    return dataclasses.replace(trained, state=state), tuple(steps)


@cpu.switched_on()
def recomputed(trained: Trained, train: Split, batches: int | None = None) -> Trained:
    """Returns a network whose batch norms have the statistics of training batches with the weights that it has now.

    Each is the mean over whole batches of an epoch, augmented as in training, of the batch's own mean or variance: what
    the running statistics of training estimate. Norms that `optim.freeze` holds keep theirs.

    Args:
        trained: the network.
        train: the train split, normalised as the network expects.
        batches: how many batches to take; None takes an epoch's.
    """
    if not trained.state.batch_stats:
        return trained
    config, step = trained.config, trained.step
    size = config.train.batch_size
    whole = len(train) // size
    count = whole if batches is None else min(batches, whole)
    feed = loader.feed(config.data.feed, train, trained.placement)

    def statistics(state: Any, number: jax.Array, held: Any, given: Any) -> Any:
        batch = feed.read(held, given)
        images, _ = step.augmented(number, batch)
        with nn.intercept_methods(_without_memory):
            _, changed = step.apply(state.params, state.replace(step=number), images, batch.ids, ["batch_stats"])
        return changed["batch_stats"]

    draws = Draws(config.seed, size, len(train))  # an epoch has each example once, whatever a batch repeats
    compiled, total = jax.jit(statistics), None
    for number, given in enumerate(feed.batches(draws.ids, 0, count, draws.epochs)):
        found = compiled(trained.state, jnp.int32(number), feed.held, given)
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
        total = found if total is None else jax.tree.map(np.add, total, found)
    return dataclasses.replace(trained, state=trained.state.replace(batch_stats=_means(total, count)))


def _means(total: Any, count: int) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x / count, jnp.float32), total)


def _without_memory(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: nn.module.InterceptorContext
) -> Any:
    """Makes the running statistics of a batch norm those of the batch alone."""
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
        # Linen makes a module anew for each application, and freezes it.
        object.__setattr__(context.module, "momentum", 0.0)
    return call(*args, **kwargs)


def as_weights(trained: Trained, run: Run, steps: tuple[int, ...], statistics: Statistics) -> Weights:
    """Returns an average as weights that know their run."""
    source = {
        "run": run.path.resolve().name,
        "directory": str(run.path.resolve()),
        "checkpoints": " ".join(map(str, steps)),
        "statistics": statistics,
    }
    return dataclasses.replace(of_trained(trained, run.path.name), source=source)


def read(directory: Path) -> tuple[Trained, Run]:
    """Returns an average that was written as weights, with all that its run knows, and the run.

    Raises:
        UsageError: the weights are no average of a run's, or the run is no longer there.
        RunError: something is damaged.
    """
    weights = Weights.read(directory)
    if "directory" not in weights.source:
        raise UsageError(
            f"{directory} holds weights that no run of convjax has made: nothing says which data to evaluate them on"
        )
    run = Run(Path(weights.source["directory"]))
    trained = Trained.read(run, "latest")
    state = trained.state.replace(
        params=weights.variables["params"], batch_stats=weights.variables.get("batch_stats", {}), ema={}
    )
    return dataclasses.replace(trained, state=state), run
