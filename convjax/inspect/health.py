"""The health of a network: units that never answer, statistics of its norms, sizes of gradients and updates."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data.loader import Batch
from convjax.data.sources import Split
from convjax.data.splits import Splits
from convjax.errors import RunError
from convjax.inspect.features import features
from convjax.inspect.replay import layer_norms
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config
from convjax.train.evaluate import Trained, build, initial
from convjax.train.parallel import Placement
from convjax.train.plan import draws
from convjax.train.run import Run
from convjax.train.state import TrainState
from convjax.train.step import Step

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Units:
    """A layer's outputs over some images.

    Attributes:
        part: the layer.
        channels: number of its channels.
        dead: those that are the same number everywhere, on all images.
        zeros: share of values that are 0.
        mean: of all values.
        deviation: their standard deviation.
    """

    part: str
    channels: int
    dead: int
    zeros: float
    mean: float
    deviation: float


@dataclasses.dataclass(frozen=True)
class Norm:
    """A batch norm's running statistics: path, and least and largest mean and variance over channels."""

    path: str
    mean: tuple[float, float]
    variance: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the step after a checkpoint does to each layer, by path.

    Attributes:
        step: of the checkpoint.
        parameters: norm of the layer's parameters.
        gradients: norm of the gradient of the loss of the step's batch.
        updates: norm of the change that the optimizer makes.
    """

    step: int
    parameters: dict[str, float]
    gradients: dict[str, float]
    updates: dict[str, float]


def units(
    model: nn.Module,
    variables: Mapping[str, Any],
    normalise: Callable[[jax.Array], jax.Array],
    images: NDArray[np.uint8],
) -> list[Units]:
    """Returns of each part of the model's first level that returns one array how its channels answer to images.

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        normalise: turns uint8 images into what the network takes.
        images: uint8 `[N, H, W, C]`.
    """
    names: list[str] = []

    @jax.jit
    def measured(variables: Any, images: jax.Array) -> list[Any]:
        numbers = []
        seen: list[Any] = []
        for name, output in features(model, variables, normalise(images)).items():
            # A stage returns what its last block does.
            if getattr(output, "ndim", 0) < 2 or any(output is other for other in seen):
                continue
            seen.append(output)
            names.append(name)
            flat = jnp.asarray(output, jnp.float32).reshape(-1, output.shape[-1])
            numbers.append((flat.max(axis=0) == flat.min(axis=0), (flat == 0).mean(), flat.mean(), flat.std()))
        return numbers

    found = jax.device_get(measured(dict(variables), images))
    return [
        Units(name, len(dead), int(dead.sum()), float(zeros), float(mean), float(deviation))
        for name, (dead, zeros, mean, deviation) in zip(names, found, strict=True)
    ]


def norms(variables: Mapping[str, Any]) -> list[Norm]:
    """Returns the running statistics of each batch norm; none where there is none."""
    layers: dict[str, dict[str, NDArray[np.float32]]] = {}
    for path, leaf in flax.traverse_util.flatten_dict(dict(variables.get("batch_stats", {}))).items():
        layers.setdefault("/".join(path[:-1]), {})[path[-1]] = np.asarray(leaf)

    def ends(values: NDArray[np.float32]) -> tuple[float, float]:
        return float(values.min()), float(values.max())

    found = [(path, held) for path, held in layers.items() if {"mean", "var"} <= set(held)]
    return [Norm(path, ends(held["mean"]), ends(held["var"])) for path, held in found]


def sizes(run: Run, trained: Trained, split: Split) -> list[Sizes]:
    """Returns the sizes of gradients and updates at each checkpoint that the run keeps, by rising step.

    They are those of the step after the checkpoint, taken on one device, the batch at once; after the last checkpoint
    those of the step that would follow. Nothing is written. A damaged checkpoint is named in a warning and left out.

    Args:
        run: the run.
        trained: its network.
        split: its train split.
    """
    config = trained.config
    look = jax.jit(functools.partial(_look, trained.step), static_argnums=0)
    found = []
    with Checkpoints(run.checkpoints, {}, read_only=True) as checkpoints:
        for step in checkpoints.steps():
            try:
                state = checkpoints.restore(step, trained.state).state
            except RunError as error:
                _logger.warning("%s", error)
                continue
            three = jax.device_get(look(trained.step.sizes.at(step), state, _batch(config, split, step)))
            found.append(Sizes(step, *({name: float(value) for name, value in each.items()} for each in three)))
    return found


def gradients_at_start(config: Config, data: Splits) -> dict[str, float]:
    """Returns the norm of each layer's gradient before the first step, by path, in the order of the paths.

    Args:
        config: the experiment.
        data: its data; the gradient is that of the first batch, taken on one device.
    """
    step, _ = build(config, data.info, Placement.single())
    batch = _batch(config, data.splits["train"], 0)
    look = jax.jit(lambda state: layer_norms(_gradients(step, step.sizes.at(0), state, batch)))
    found = jax.device_get(look(initial(config, step, data.info)))
    return {name: float(value) for name, value in found.items()}


def _batch(config: Config, split: Split, step: int) -> Batch:
    """Returns the batch of the training at a step, whole on one device."""
    drawn = draws(config, len(split))
    return Batch(*map(jnp.asarray, split.drawn(drawn.ids(step), drawn.epochs(step))))


def _gradients(step: Step, size: int | None, state: TrainState, batch: Batch) -> Any:
    images, targets = step.augmented(state.step, batch, size)
    return jax.grad(lambda params: step.loss(params, state, images, batch, targets)[0])(state.params)


def _look(step: Step, size: int | None, state: TrainState, batch: Batch) -> tuple[dict[str, jax.Array], ...]:
    grads = _gradients(step, size, state, batch)
    updates, _ = step.optimizer.update(grads, state.opt_state, state.params)
    return tuple(layer_norms(tree) for tree in (state.params, grads, updates))
