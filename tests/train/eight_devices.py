"""What `test_parallel.py` asserts about, computed in a process of its own that has eight devices.

Prints one JSON object: by the name of a way to run, how far its state is from that of another.
"""

import dataclasses
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

# What is compiled runs a few times only: without optimising it the whole takes half as long.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convjax.data import loader, order
from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.data.mixing import Mix
from convjax.layers import Conv, ConvNormAct, Layers
from convjax.models import DenseNet, ResNet
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config, DataConfig, OptimConfig, ParallelConfig, TrainConfig
from convjax.train.evaluate import Evaluator, build, initial, load_data
from convjax.train.log import Mark
from convjax.train.parallel import Advance, Placement
from convjax.train.patterns import path_name
from convjax.train.state import TrainState

# A rectifier's gradient jumps where rounding moves its input across zero: of five seeds two met such a place.
BASE = Config(
    model=ResNet(block="basic", stage_sizes=(1,), width=8, stem="cifar", dropout=0.2, drop_path=0.2, activation="silu"),
    data=DataConfig("digits", augment=Augment(RandomCrop(1), HorizontalFlip(0.5), mix=Mix(0.2, 1.0))),
    optim=OptimConfig(lr=0.05, schedule="constant"),
    train=TrainConfig(batch_size=64, length="10 steps", label_smoothing=0.1, ema=0.9),
)
DATA = load_data(BASE)
ONE = ParallelConfig(devices=1)
PARTS = ("params", "batch_stats", "opt_state", "ema")


class Stock(nn.Module):
    """A user's network of stock Linen modules."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(8, (3, 3), use_bias=False)(images)  # a bias before a norm has no gradient but rounding
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.3, deterministic=not train)(nn.relu(x))
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


class Kinds(nn.Module):
    """A dense, a grouped and a depthwise convolution, with batch norms."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = Layers.build(norm="batch", activation="relu", dtype="float32", train=train)
        x = ConvNormAct(layers, 16, name="dense")(images)
        x = ConvNormAct(layers, 32, groups=4, name="grouped")(x)
        x = Conv(64, groups=32, name="depthwise")(x)
        return nn.Dense(10, name="head")(x.mean(axis=(1, 2)))


def set_up(config: Config) -> tuple[Placement, Advance, Any, TrainState]:
    placement = Placement.of(config)
    step, shapes = build(config, DATA.info, placement)
    feed = loader.feed(config.data.feed, DATA.splits["train"], placement)
    state = placement.initial(lambda: initial(config, step, DATA.info))
    return placement, Advance(placement, step, feed, shapes), feed, state


def run(parallel: ParallelConfig, *, model: Any = BASE.model, feed: Any = "resident", **train: Any) -> TrainState:
    """Returns the state after ten steps."""
    config = dataclasses.replace(
        BASE,
        model=model,
        parallel=parallel,
        data=dataclasses.replace(BASE.data, feed=feed),
        train=dataclasses.replace(BASE.train, **train),
    )
    _, advance, batches, state = set_up(config)
    state = advance.enter(state)
    for given in batches.batches(lambda n: order.batch_ids(0, n, 64, len(batches)), 0, 10):
        state, _ = advance(state, given)
    return jax.device_get(advance.leave(state))


def distance(a: TrainState, b: TrainState) -> float:
    """Returns the largest difference of any array, as a share of its largest value."""
    pairs = [
        (np.asarray(x, np.float64), np.asarray(y, np.float64))
        for part in PARTS
        for x, y in zip(jax.tree.leaves(getattr(a, part)), jax.tree.leaves(getattr(b, part)), strict=True)
    ]
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-12)) for x, y in pairs)


def frozen() -> dict[str, tuple[bool, bool, float]]:
    """Returns by way whether what is frozen keeps its bits, whether all else moves, and how far from one device it is.

    On three devices: the average of three equal numbers is not always that number.
    """
    ways = {
        "alone": ONE,
        **{mode: ParallelConfig(mode=mode, devices=3) for mode in ("jit", "shard_map", "pmap")},
        "jit, local": ParallelConfig(devices=3, batch_stats="local"),
        "shard_optimizer": ParallelConfig(devices=3, shard_optimizer=True),
    }
    found, alone = {}, None
    for way, parallel in ways.items():
        config = dataclasses.replace(
            BASE,
            parallel=parallel,
            optim=dataclasses.replace(BASE.optim, freeze=("stem/*", "*/conv1/*"), rates=("head/*=0.1",)),
            train=dataclasses.replace(BASE.train, batch_size=48),
        )
        _, advance, batches, state = set_up(config)
        first, state = jax.device_get(state), advance.enter(state)
        examples = len(batches)
        for given in batches.batches(lambda n, examples=examples: order.batch_ids(0, n, 48, examples), 0, 10):
            state, _ = advance(state, given)
        after = jax.device_get(advance.leave(state))
        alone = alone or after
        same: dict[bool, list[bool]] = {True: [], False: []}
        for kind in ("params", "batch_stats", "ema"):
            leaves = (jax.tree_util.tree_leaves_with_path(getattr(s, kind)) for s in (first, after))
            for (path, a), (_, b) in zip(*leaves, strict=True):
                still = any(part in path_name(path) for part in ("stem", "conv1"))
                same[still].append(bool(np.array_equal(a, b)))
        found[way] = all(same[True]), not any(same[False]), distance(after, alone)
    return found


def local_by_hand() -> tuple[float, float]:
    """Returns how far one step with local statistics is from a computation part by part, and the same of the norms."""
    config = dataclasses.replace(
        BASE,
        model=Kinds(),
        data=DataConfig("digits"),
        optim=OptimConfig(
            lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant", decay=("*",), no_decay=()
        ),
        train=TrainConfig(batch_size=64, length="10 steps"),
        parallel=ParallelConfig(mode="shard_map", batch_stats="local"),
    )
    _, advance, batches, state = set_up(config)
    before = jax.device_get(state)
    ids = order.batch_ids(0, 0, 64, len(batches))
    after, _ = advance(state, next(batches.batches(lambda n: ids, 0, 1)))
    images, labels = DATA.splits["train"].images[ids], DATA.splits["train"].labels[ids]

    def part_loss(params: Any, part: int) -> tuple[jax.Array, Any]:
        rows = slice(8 * part, 8 * part + 8)
        logits, changed = Kinds().apply(
            {"params": params, "batch_stats": before.batch_stats},
            DATA.info.normalise(jnp.asarray(images[rows])),
            train=True,
            mutable=["batch_stats"],
        )
        log_p = jax.nn.log_softmax(logits)
        return -log_p[jnp.arange(8), labels[rows]].mean(), changed["batch_stats"]

    found = [jax.grad(part_loss, has_aux=True)(before.params, part) for part in range(8)]
    mean = jax.tree.map(lambda *parts: sum(parts) / 8, *found)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, before.params, mean[0])
    expected = before.replace(params=params, batch_stats=mean[1])
    after = jax.device_get(after)
    whole = after.replace(opt_state=before.opt_state, ema={})
    return distance(whole, expected.replace(ema={})), distance(whole, before.replace(ema={}))


def collectives(model: Any, parallel: ParallelConfig) -> dict[str, int]:
    """Counts the collective operations in the compiled training step."""
    config = dataclasses.replace(BASE, model=model, parallel=parallel, data=DataConfig("digits"))
    _, advance, batches, state = set_up(config)
    given = next(batches.batches(lambda n: order.batch_ids(0, n, 64, len(batches)), 0, 1))
    text = advance.lower(state, given).compile().as_text()
    kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
    return {kind: len(re.findall(rf"= .*? {kind}(?:-start)?\(", text)) for kind in kinds}


def evaluations() -> list[bool]:
    """Says for several numbers of devices whether the test split's evaluation is that on one device."""
    found = []
    for devices in (1, 3, 8):
        config = dataclasses.replace(BASE, parallel=ParallelConfig(devices=devices), train=TrainConfig(batch_size=48))
        placement, _, _, state = set_up(config)
        step, _ = build(config, DATA.info, placement)
        evaluator = Evaluator(step, DATA.info.class_names, 50, placement)
        found.append(evaluator("test", state, loader.feed("resident", DATA.splits["test"], placement)))
    return [
        e.examples == 360 and e.confusion == found[0].confusion and abs(e.loss - found[0].loss) < 1e-6 for e in found
    ]


def moved() -> dict[str, bool]:
    """Says whether a state saved on four devices comes back to the bit on other numbers, in and out of every mode."""

    def config(mode: Any, devices: int, divided: bool = False) -> Config:
        return dataclasses.replace(BASE, parallel=ParallelConfig(mode=mode, devices=devices, shard_optimizer=divided))

    found = {}
    for name, source in (("jit", config("jit", 4)), ("divided", config("jit", 4, True)), ("pmap", config("pmap", 4))):
        _, advance, _, state = set_up(source)
        # Other values in each place of an array: what is divided must come back in order.
        state = jax.tree.map(lambda x: x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), state)
        state = advance.leave(advance.enter(state))
        with tempfile.TemporaryDirectory() as directory, Checkpoints(Path(directory) / "c", {}) as checkpoints:
            checkpoints.save(state, Mark(0, ""))
            checkpoints.wait()
            for mode in ("jit", "shard_map", "pmap"):
                for devices in (1, 2, 8):
                    target = config(mode, devices, divided=mode == "jit")
                    placement = Placement.of(target)
                    step, shapes = build(target, DATA.info, placement)
                    feed = loader.feed("resident", DATA.splits["test"], placement)
                    other = Advance(placement, step, feed, shapes)
                    restored = other.leave(other.enter(checkpoints.restore("latest", shapes).state))
                    pairs = zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True)
                    found[f"{name} to {devices}, {mode}"] = all(
                        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs
                    )
    return found


def main() -> None:
    one = run(ONE)
    modes: tuple[Any, ...] = ("jit", "shard_map", "pmap")
    results: dict[str, Any] = {mode: distance(run(ParallelConfig(mode=mode)), one) for mode in modes}
    results["streamed"] = distance(run(ParallelConfig(devices=4), feed="streamed"), one)
    results["shard_optimizer"] = distance(run(ParallelConfig(shard_optimizer=True)), one)
    stock = run(ONE, model=Stock())
    for mode in modes:
        results[f"stock {mode}"] = distance(run(ParallelConfig(mode=mode), model=Stock()), stock)
    accumulated = run(ONE, accumulate=4)
    results["accumulated"] = {
        m: distance(run(ParallelConfig(mode=m, devices=4), accumulate=4), accumulated) for m in modes
    }
    local = {mode: run(ParallelConfig(mode=mode, batch_stats="local")) for mode in modes}
    results["local"] = {mode: distance(local[mode], local["shard_map"]) for mode in modes}
    dense = DenseNet(block_sizes=(2,), growth=4, stem_features=8, stem="cifar", activation="silu")
    results["dense"] = distance(run(ParallelConfig(mode="shard_map"), model=dense), run(ONE, model=dense))
    dense_local = [run(ParallelConfig(mode=mode, batch_stats="local"), model=dense) for mode in ("jit", "shard_map")]
    results["dense local"] = distance(*dense_local)
    results["local is not global"] = distance(local["shard_map"], one)
    results["local by hand"] = local_by_hand()
    results["collectives"] = {
        "without batch norms": collectives(BASE.model.clone(norm="group"), ParallelConfig()),
        "with three batch norms": collectives(BASE.model, ParallelConfig()),
        "kinds": collectives(Kinds(), ParallelConfig()),
        "kinds, shard_map": collectives(Kinds(), ParallelConfig(mode="shard_map")),
    }
    results["evaluations"] = evaluations()
    results["moved"] = moved()
    without = BASE.model.clone(norm="group")
    large = run(ONE, model=without)
    results["micro-batches without batch norms"] = distance(run(ONE, model=without, accumulate=4), large)
    results["frozen"] = frozen()
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
