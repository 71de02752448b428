"""Trains every named model for twenty steps in float32, bfloat16 and float16, and tells how far the losses lie apart.

    python tests/models/precision.py [NAME ...] [--write docs/parallel.md]

Takes hours, of which most go into compiling. What is done stands in docs/precision.jsonl, and another start goes on
from there; delete a line to train that model anew, or the file to begin with all.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1]))
from blocks_apart import DEEP, blocks_apart
from small_models import image_size

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.models import MODELS, create
from convjax.ops import cpu
from convjax.train import state as states
from convjax.train.loss_scale import LossScale
from convjax.train.losses import Loss
from convjax.train.step import Step

HALVES = ("bfloat16", "float16")
STEPS = 20
BATCH = 8
DEPTHWISE = {"convnext": 8, "efficientnet": 32, "mobilenet_v2": 32, "mobilenet_v3": 32}
"""Images in a batch of families with depthwise convolutions. They have 32 pixels here, of which the last stages see
one, and a batch norm needs more than eight values."""
WIDE = {"wide_resnet50_2": 32, "wide_resnet101_2": 32, "resnext101_32x8d": 32}
"""The same of single networks, whose last stage sees four pixels of each image: with eight images bfloat16's first loss
was 5.3 % off in wide_resnet50_2, and 5.7 in resnext101_32x8d (float16's 3.9)."""
CLIPPED = ("plain110",)
"""Whose first gradient has a norm of 4e7, so that a step along it leaves float16's range: clipped to a norm of 1."""
DONE = Path(__file__).parents[2] / "docs" / "precision.jsonl"
ROUNDED = "float32 from rounded weights"
SHAKEN = tuple(f"float32 from weights shaken by {number}" for number in (1, 2))
"""By a seed: each weight is moved by as much as a rounding to bfloat16 may move it, up or down."""
FIRST, ALL, TIMES = 0.05, 0.1, 2
"""Largest relative difference of a loss from float32's: of the first one, that of the same weights, and of any; where
float32 itself, from weights rounded to bfloat16 or shaken as much, goes further away, this many times as far."""
MARKS = ("<!-- precision: begin -->", "<!-- precision: end -->")
_CHEAP: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""What runs but once is compiled without optimising it: three times as fast."""


@dataclasses.dataclass(frozen=True)
class Losses:
    """One model's losses, step by step.

    Attributes:
        name: of the model.
        losses: by precision; those of float32 also from weights that were rounded to bfloat16, and from weights that
            were shaken. A deep network at its start may be so sensitive that they go their own way (ResNet-50's
            gradient has a norm of 1,600 here, and a change of its weights by 1e-7 moves the twentieth loss by 10 %): no
            other precision can be nearer then. What was trained first has no shaken ones, and needed none.
        overflows: float16's steps that were taken again, after the loss scale was halved.
        seconds: that it took.
        gradient_norm: largest of float32's gradients; not a number of what was trained before it was noted.
    """

    name: str
    losses: dict[str, list[float]]
    overflows: int
    seconds: float
    gradient_norm: float = math.nan

    def halvings(self) -> int:
        """Returns how often float16's first loss scale must be halved for a gradient of that norm, in one number."""
        scaled = float(LossScale.create().scale) * self.gradient_norm
        return max(0, math.ceil(math.log2(scaled / float(jnp.finfo(jnp.float16).max))))

    def first(self, dtype: str) -> float:
        """Returns the relative difference of the first loss from float32's: that of the same weights."""
        whole, half = self.losses["float32"][0], self.losses[dtype][0]
        return abs(half - whole) / whole

    def largest(self, dtype: str) -> float:
        """Returns the largest relative difference of a step's loss from float32's."""
        whole, half = np.array(self.losses["float32"]), np.array(self.losses[dtype])
        return float(np.max(np.abs(half - whole) / whole))

    def spread(self) -> float:
        """Returns how far float32 goes from itself, after a change of its weights that bfloat16 would not see."""
        return max(self.largest(start) for start in (ROUNDED, *SHAKEN) if start in self.losses)

    def far(self) -> list[str]:
        """Returns the precisions whose losses are further from float32's than they may be."""
        limit = max(ALL, TIMES * self.spread())
        return [dtype for dtype in HALVES if self.first(dtype) > FIRST or self.largest(dtype) > limit]


def train(name: str) -> Losses:
    """Returns the losses of twenty steps on one batch, in each precision from the same initial weights.

    Labels are smoothed, as ImageNet's recipes have it, which keeps the loss from falling to zero: 0.5 is its least.
    """
    began = time.monotonic()
    height, width, channels = image_size(name)
    kind = family(name)
    image = (min(height, 32), min(width, 32), channels) if kind in DEPTHWISE else (height, width, channels)
    batch_size = WIDE.get(name) or DEPTHWISE.get(kind, BATCH)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (batch_size, *image)).astype(np.uint8), rng.integers(0, 10, batch_size)
    batch = Batch(jnp.asarray(images), jnp.asarray(labels, jnp.int32), jnp.arange(batch_size))
    rate = optax.constant_schedule(1e-3)
    clip = optax.clip_by_global_norm(1.0) if name in CLIPPED else optax.identity()
    optimizer = optax.chain(clip, optax.sgd(rate, momentum=0.9))
    losses: dict[str, list[float]] = {}
    overflows, first, norms = 0, None, list[float]()
    for dtype in ("float32", ROUNDED, *SHAKEN, *HALVES):
        if dtype in ("float32", *HALVES):  # the others go on with float32's program
            model = create(name, num_classes=10, dtype=dtype)
            step = Step(model, optimizer, rate, Normalise((0.5,), (0.25,)), criterion=Loss(smoothing=0.1))
            initial = functools.partial(states.init, model, optimizer, image, 0)
            advance: Any = step.train if name in DEEP else jax.jit(step.train, donate_argnums=0)
        if first is None:
            first = jax.device_get(initial() if name in DEEP else jax.jit(initial, compiler_options=_CHEAP)())
        # All precisions have the same parameters: this one's are float32 too.
        scale: Any = LossScale.create() if dtype == "float16" else {}
        state = jax.device_put(first.replace(loss_scale=scale))
        like = jax.eval_shape(initial)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), like)
        if dtype == ROUNDED:
            state = state.replace(params=optax.tree.cast(optax.tree.cast(state.params, jnp.bfloat16), jnp.float32))
        if dtype in SHAKEN:
            state = state.replace(params=shaken(state.params, SHAKEN.index(dtype) + 1))
        losses[dtype] = []
        while len(losses[dtype]) < STEPS:
            # The kernels are those of the commands: XLA's grouped convolutions take seconds on a CPU.
            with cpu.switched_on(), blocks_apart() if name in DEEP else contextlib.nullcontext():
                state, metrics = advance(state, batch)
            assert not metrics["broken"], f"{name} in {dtype}: step {len(losses[dtype]) + 1} is not finite"
            if state.loss_scale and int(state.loss_scale.overflows):
                # Left out but for the scale, which is halved now: the same step again, with the same dropout.
                overflows += 1
                scale = state.loss_scale.replace(overflows=jnp.int32(0))
                state = state.replace(step=state.step - 1, loss_scale=scale)
            else:
                losses[dtype].append(float(f"{metrics['loss']:.7g}"))
                if dtype == "float32":
                    norms.append(float(metrics["gradient_norm"]))
        arrays = jax.tree.leaves((state.params, state.batch_stats))
        assert all(x.dtype == jnp.float32 and bool(jnp.isfinite(x).all()) for x in arrays), f"{name} in {dtype}"
    return Losses(name, losses, overflows, round(time.monotonic() - began, 1), float(f"{max(norms):.4g}"))


def shaken(params: Any, seed: int) -> Any:
    """Returns weights each of which is larger or smaller by 2**-9 of itself: half a unit in bfloat16's last place."""
    rng = np.random.default_rng(seed)
    signs = jax.tree.map(lambda x: 2 * rng.integers(0, 2, x.shape, np.int8) - 1, params)
    return jax.tree.map(lambda x, sign: x * (1 + np.float32(2**-9) * sign), params, signs)


def family(name: str) -> str:
    """Returns the family that a model belongs to."""
    return type(MODELS[name].module).__module__.rpartition(".")[2]


def in_turn() -> list[str]:
    """Returns all names, one of each family after the other: so that a run which is stopped has seen all families."""
    families = [list(names) for _, names in itertools.groupby(sorted(MODELS, key=family), key=family)]
    return [name for turn in itertools.zip_longest(*families) for name in turn if name is not None]


def done() -> dict[str, Losses]:
    """Returns what earlier starts have found."""
    lines = DONE.read_text().splitlines() if DONE.is_file() else []
    return {found.name: found for found in (Losses(**json.loads(line)) for line in lines)}


def table(found: dict[str, Losses]) -> str:
    """Returns the largest differences of each family."""
    rows = [
        "| family | models | bfloat16, first step | all steps | float16, first step | all steps | overflows "
        "| float32, other starts |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in sorted({family(name) for name in MODELS}):
        known = [name for name in MODELS if family(name) == kind]
        own = [found[name] for name in known if name in found]
        if not own:
            rows.append(f"| {kind} | 0 of {len(known)} | | | | | | |")
            continue
        shares = [max(getattr(f, which)(dtype) for f in own) for dtype in HALVES for which in ("first", "largest")]
        cells = " | ".join(f"{100 * share:.2g} %" for share in shares)
        rows.append(
            f"| {kind} | {len(own)} of {len(known)} | {cells} | {max(f.overflows for f in own)} "
            f"| {100 * max(f.spread() for f in own):.2g} % |"
        )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the models to train (default all)")
    parser.add_argument("--write", type=Path, help="file in which to put the table between the marks for it")
    arguments = parser.parse_args()
    found, failed = done(), list[str]()
    for name in arguments.names or in_turn():
        if name in found:
            continue
        try:
            found[name] = train(name)
        except AssertionError as error:
            failed.append(str(error))
            continue
        with DONE.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(found[name])) + "\n")
        shares = ", ".join(f"{d} {100 * found[name].largest(d):.2g} %" for d in found[name].losses if d != "float32")
        print(f"{name}: {shares}, {found[name].seconds:.0f} s", flush=True)
        jax.clear_caches()  # some hundred programs would not fit into memory
    hours = sum(losses.seconds for losses in found.values()) / 3600
    text = f"{len(found)} of {len(MODELS)} models, {hours:.1f} hours on {os.cpu_count()} cores.\n\n{table(found)}"
    print(f"\n{text}")
    if arguments.write:
        before, _, rest = arguments.write.read_text().partition(MARKS[0])
        arguments.write.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")
    failed += [f"{name}: {', '.join(losses.far())} too far" for name, losses in found.items() if losses.far()]
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
