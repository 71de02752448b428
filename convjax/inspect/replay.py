"""One step of a run, taken again and looked into."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data import loader
from convjax.data.loader import Batch
from convjax.errors import UsageError
from convjax.ops import cpu
from convjax.train import transfer
from convjax.train.checkpoint import Checkpoints
from convjax.train.evaluate import begin, build, load_same_data
from convjax.train.from_images import computed
from convjax.train.parallel import Advance, Placement
from convjax.train.patterns import path_name
from convjax.train.plan import Plan, draws
from convjax.train.run import Run
from convjax.train.stack import Stack
from convjax.train.state import TrainState
from convjax.train.step import Step


@dataclasses.dataclass(frozen=True)
class Replay:
    """Attributes:
    step: counted from 1.
    begun: the step of the checkpoint that the replay began from, 0 for the initial state.
    ids: which example of the train split each of the batch is.
    labels: int32 `[N]`.
    images: uint8 `[N, H, W, C]`, after augmentation.
    class_names: name of each class.
    metrics: what the training step returned: loss, accuracy, gradient_norm, learning_rate, ...
    logged: the run's own line of these, by the same names, None where this step was not logged.
    gradient_norms: norm of the gradient of each layer's parameters, in the order of the parameters' paths; of the
        batch taken at once, whatever `train.accumulate` is.
    activations: largest absolute value of each module's output in the training step; not finite where one is.
    """

    step: int
    begun: int
    ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    images: NDArray[np.uint8]
    class_names: tuple[str, ...]
    metrics: dict[str, float]
    logged: dict[str, float | None] | None
    gradient_norms: dict[str, float]
    activations: dict[str, float]

    def differs(self) -> list[str]:
        """Returns the names of the logged metrics that are not the same bits."""

        def text(value: float | None) -> str:
            return json.dumps(value if value is not None and np.isfinite(value) else None)

        return [name for name, value in (self.logged or {}).items() if text(value) != text(self.metrics[name])]


@cpu.switched_on()
def replay(run: Run, number: int, advanced: Callable[[int], None] = lambda step: None) -> Replay:
    """Takes the steps of a run from its nearest earlier checkpoint up to one again, the last one with a look inside.

    A run that was trained together with others is taken again by the same program, in which it takes the others'
    places, too.

    Args:
        run: the run; nothing is written to it.
        number: the step, counted from 1.
        advanced: called with each step that is done.

    Raises:
        UsageError: there is no run, no such step, or the data are not what it was trained on.
    """
    config, info = run.read_config(), run.read_info()
    length = Plan.of(config, info).steps
    if not 1 <= number <= length:
        raise UsageError(f"--step is {number}: the run has the steps from 1 to {length}")
    data = load_same_data(config, info, run)
    placement = Placement.of(config)
    step, shapes = build(config, info, placement)
    saved = None
    if run.checkpoints.is_dir():
        with Checkpoints(run.checkpoints, {}, read_only=True) as checkpoints:
            saved = checkpoints.restore_before(number, shapes)
    if saved is None:
        taken = computed(config, data.splits["train"], step.normalise)
        taken |= dict(transfer.begun_with(config, run, shapes, info))
        state = begin(config, step, info, placement, taken)
    else:
        state = saved.state
    begun = saved.step if saved else 0

    split = data.splits["train"]
    drawn = draws(config, len(split))
    feed = loader.feed(config.data.feed, split, placement)
    seeds = run.seeds_at_once(number)
    advance = Stack(placement, step, feed, seeds).lane(config.seed) if seeds else Advance(placement, step, feed, shapes)
    state = advance.enter(state)
    batches = feed.batches(drawn.ids, begun, number, drawn.epochs)
    for done, given in enumerate(batches, start=begun + 1):
        if done == number:
            ids = drawn.ids(number - 1)
            batch = Batch(*map(placement.replicate, split.drawn(ids, drawn.epochs(number - 1))))
            inside = jax.jit(functools.partial(_inside, step, step.sizes.at(number - 1)))
            images, gradient_norms, activations = jax.device_get(inside(advance.leave(state), batch))
        state, metrics = advance(state, given)
        advanced(done)
    scalars = advance.read(metrics)
    del scalars["broken"]
    logged = _logged(run, number)
    if not scalars["skipped"] and "skipped" not in (logged or {}):
        del scalars["skipped"]  # a run logs it only where updates may be left out
    return Replay(
        step=number,
        begun=begun,
        ids=ids % len(split),
        labels=split.labels[ids % len(split)],
        images=images,
        class_names=info.class_names,
        metrics=scalars,
        logged=logged,
        gradient_norms={name: float(value) for name, value in gradient_norms.items()},
        activations={name: float(value) for name, value in activations.items()},
    )


def _inside(
    step: Step, size: int | None, state: TrainState, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """Returns augmented images, the norm of each layer's gradient, and each module's largest activation."""
    images, targets = step.augmented(state.step, batch, size)
    grads = jax.grad(lambda params: step.loss(params, state, images, batch, targets)[0])(state.params)
    changes = ["batch_stats", "intermediates"]
    _, changed = step.apply(state.params, state, images, batch.ids, changes, capture_intermediates=True)
    outputs = changed["intermediates"]
    largest = {
        _module(path_name(path)): jnp.max(jnp.abs(leaf)).astype(jnp.float32)
        for path, leaf in jax.tree_util.tree_flatten_with_path(outputs)[0]
    }
    return images.astype(jnp.uint8), layer_norms(grads), largest


def layer_norms(tree: Any) -> dict[str, jax.Array]:
    """Returns the norm of each layer's part of a tree like the parameters, by path, in the order of the paths."""
    squares: dict[str, jax.Array] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        layer = path_name(path[:-1]) or path_name(path)
        squares[layer] = squares.get(layer, jnp.zeros(())) + jnp.sum(jnp.square(leaf))
    return {name: jnp.sqrt(square) for name, square in squares.items()}


def _module(path: str) -> str:
    """Returns `stage1_block1/conv1` for `stage1_block1/conv1/__call__/0`, its first call."""
    module, _, call = path.rpartition("__call__/")
    name = module.rstrip("/") or "the model"
    return name if call == "0" else f"{name}, call {call}"


def _logged(run: Run, number: int) -> dict[str, Any] | None:
    """Returns the metrics of a training step from the run's log, None where it was not logged."""
    for line in run.metrics():
        if line["step"] == number and "train.loss" in line:
            return {name.removeprefix("train."): value for name, value in line.items() if name != "step"}
    return None
