"""convjax: the step that its training loop takes, and the logits that its evaluation takes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.inspect import count
from convjax.models import Model, ResNet, create
from convjax.ops import cpu
from convjax.ops.epilogue import with_epilogues
from convjax.train import state as states
from convjax.train.step import Step
from peers import batch, jax_side
from peers.cases import NETWORKS, Case, Network, Precision
from peers.side import Prepared

PASSES = {"train": 3, "infer": 1}
"""A training step computes the output, the gradient of the images and that of the kernels: as much work each."""


def model(network: Network, precision: Precision) -> Model:
    """Returns convjax's network."""
    if network.name == "resnet18_cifar":
        return ResNet(
            num_classes=network.classes, dtype=precision, stage_sizes=(2, 2, 2, 2), block="basic", stem="cifar"
        )
    return create(network.name, num_classes=network.classes, dtype=precision)


def work(case: Case) -> float:
    """Returns the floating-point operations of a step of a case: two for each multiply-accumulate."""
    network = NETWORKS[case.network]
    macs = count.multiply_accumulates(model(network, case.precision), network.image)
    return 2.0 * PASSES[case.task] * case.batch * macs


@contextlib.contextmanager
def prepared(case: Case, mode: Any) -> Iterator[Prepared]:
    """Prepares a case with the kernels that `mode` names."""
    network = NETWORKS[case.network]
    net = model(network, case.precision)
    rate = optax.constant_schedule(0.01)
    channels = network.image[2]
    normalise = Normalise((batch.MEAN,) * channels, (batch.DEVIATION,) * channels)
    step = Step(net, optax.sgd(rate, momentum=0.9), rate, normalise)
    images, labels = batch.raw(case)
    given = Batch(jnp.asarray(images), jnp.asarray(labels), jnp.arange(case.batch))
    state = jax.jit(lambda: states.init(net, step.optimizer, network.image, 0))()
    train = jax.jit(step.train, donate_argnums=0)
    logits = jax.jit(with_epilogues(step.logits))

    def advance() -> Any:
        nonlocal state
        state, metrics = train(state, given)
        return metrics["loss"], state

    def ask() -> Any:
        return logits(state, given.images)

    with cpu.switched_on(mode):
        yield jax_side.prepared(case, advance, ask, state.params)
