"""What certifies that a named network is the one of PyTorch's libraries, in a form that needs no PyTorch.

Weights and images are functions of their names: drawn from the bits of Philox (Salmon et al. 2011), whose stream NumPy
keeps, by exact integers and single roundings, so that they are the same everywhere. A certificate holds what the
library computed from them in float64: the logits as they are, and of each longer array its norm and a sketch. As in a
count sketch (Charikar et al. 2002), entry i of an array adds to number i mod 4 of its sketch with a random sign: a
sketch is linear, and as long as its array on average, so that the difference of two sketches tells how far apart their
arrays are.

In evaluation the running statistics must fit the signals, or these vanish or explode: `levels` are what the library
found each norm's input to be, squared, on average. In training gradients jump where a value crosses a rectifier's zero
or another's place as the largest of a pooling, be it by rounding alone. Norms therefore scale little and shift by about
one, so that few values are near zero, and `seed` is the first whose images bring none within `MARGIN` of such a place.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax.inspect.features import features
from convjax.interop.layout import Array, Shape
from convjax.interop.torch_names import from_torch, names_and_shapes, to_torch
from convjax.models import MODELS, create

DIRECTORY = Path(__file__).parent / "models" / "certificates"
SKETCH = 4
"""Numbers of a sketch."""
BATCH = 2
"""Images of a batch."""
MARGIN = 1e-6
"""Least distance of a value from where the gradient jumps, relative to the root mean square of values there."""
TRAINED_SIZE = 64
"""Side of images in training, in pixels, at most."""


@dataclasses.dataclass(frozen=True)
class Norm:
    """A batch norm of the library's network.

    Attributes:
        level: mean square of its input in evaluation.
        count: values of a channel in training.
        momentum: share of the batch's statistics in the new running ones.
    """

    level: float
    count: int
    momentum: float


@dataclasses.dataclass(frozen=True)
class Value:
    """What is kept of an array.

    Attributes:
        norm: its length.
        sketch: `[SKETCH]`.
        rounding: how far the library's own array in float32 is from it, as `apart` has it.
    """

    norm: float
    sketch: Array
    rounding: float


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a library computed.

    Attributes:
        source: library and version.
        digests: of weights and images, in evaluation and in training.
        seed: of the images in training.
        norms: batch norms by the library's name.
        logits: in evaluation `[BATCH, num_classes]`.
        values: by name as `features/stage1`, `loss`, `gradients/conv1.weight`, `statistics/bn1.running_var`.
    """

    source: str
    digests: tuple[str, str]
    seed: int
    norms: Mapping[str, Norm]
    logits: Array
    values: Mapping[str, Value]

    def write(self, name: str) -> None:
        """Writes the certificate of a named network, without pickles."""
        DIRECTORY.mkdir(exist_ok=True)
        np.savez_compressed(
            DIRECTORY / f"{name}.npz",
            source=np.array(self.source),
            digests=np.array(self.digests),
            seed=np.array(self.seed),
            norm_names=np.array(list(self.norms), dtype=np.str_),
            norms=np.array([dataclasses.astuple(norm) for norm in self.norms.values()], np.float32),
            logits=self.logits.astype(np.float32),
            value_names=np.array(list(self.values), dtype=np.str_),
            values=np.array([[v.norm, *v.sketch, v.rounding] for v in self.values.values()], np.float32),
        )

    @classmethod
    def read(cls, name: str) -> "Certificate":
        """Reads the certificate of a named network."""
        with np.load(DIRECTORY / f"{name}.npz", allow_pickle=False) as file:
            norms = zip(file["norm_names"], file["norms"], strict=True)
            values = zip(file["value_names"], file["values"].astype(np.float64), strict=True)
            first, second = map(str, file["digests"])
            return cls(
                source=str(file["source"]),
                digests=(first, second),
                seed=int(file["seed"]),
                norms={str(k): Norm(float(level), int(count), float(m)) for k, (level, count, m) in norms},
                logits=file["logits"],
                values={str(key): Value(float(v[0]), v[1:-1], float(v[-1])) for key, v in values},
            )


def exists(name: str) -> bool:
    """Says whether a certificate of a named network is recorded."""
    return (DIRECTORY / f"{name}.npz").is_file()


def bits(key: str, count: int) -> Array:
    """Returns `count` random uint32 that belong to a key."""
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "little")
    raw = np.random.Philox(key=number).random_raw((count + 1) // 2)
    return np.stack([raw & 0xFFFFFFFF, raw >> np.uint64(32)], axis=-1).astype(np.uint32).ravel()[:count]


def uniform(key: str, shape: Shape, low: float, high: float) -> Array:
    """Returns float32 numbers from `low` to `high` that belong to a key."""
    fractions = (bits(key, math.prod(shape)) >> 8).astype(np.float32) * np.float32(2**-24)
    return np.float32(low) + np.float32(high - low) * fractions.reshape(shape)


def weights(name: str, levels: Mapping[str, float] | None = None) -> dict[str, Array]:
    """Returns a state dict for the library's network of a name: for evaluation with `levels`, for training without."""
    shapes = names_and_shapes(name)
    return {key: _weight(key, shapes, levels, fixed_scales=name == "airbench94") for key in shapes}


def _weight(key: str, shapes: Mapping[str, Shape], levels: Mapping[str, float] | None, *, fixed_scales: bool) -> Array:
    shape = shapes[key]
    module, _, leaf = key.rpartition(".")
    normalises = len(shapes.get(f"{module}.weight", (0, 0))) == 1
    if leaf == "running_mean":
        return np.sqrt(np.float32((levels or {}).get(module, 1))) * uniform(key, shape, -0.3, 0.3)
    if leaf == "running_var":
        return np.float32((levels or {}).get(module, 1)) * uniform(key, shape, 0.8, 1.25)
    if leaf == "bias":
        return uniform(key, shape, -0.25, 0.25) + np.float32(normalises and levels is None)
    if leaf == "weight" and normalises:
        low, high = (0.5, 1.5) if levels is not None else (0.2, 0.4)
        return np.ones(shape, np.float32) if fixed_scales else uniform(key, shape, low, high)
    if leaf == "layer_scale":
        return uniform(key, shape, 0.5, 1.5)
    bound = math.sqrt(6 / math.prod(shape[1:]))  # variance 2 / fan-in
    return uniform(key, shape, -bound, bound)


def evaluated_images(name: str) -> Array:
    """Returns images `[BATCH, C, H, W]` of a named network's usual size."""
    return _images("evaluated", MODELS[name].image)


def trained_images(name: str, seed: int) -> Array:
    """Returns images `[BATCH, C, H, W]` of at most 64 pixels a side."""
    height, width, channels = MODELS[name].image
    return _images(f"trained {seed}", (min(height, TRAINED_SIZE), min(width, TRAINED_SIZE), channels))


def _images(key: str, image: Shape) -> Array:
    """Returns noise on squares, and on single pixels."""
    height, width, channels = image
    squares = uniform(f"squares {key}", (BATCH, channels, 7, 7), -1.5, 1.5)
    squares = squares.repeat(-(-height // 7), axis=2).repeat(-(-width // 7), axis=3)[:, :, :height, :width]
    return squares + uniform(f"pixels {key}", (BATCH, channels, height, width), -0.75, 0.75)


def digest(state_dict: Mapping[str, Array], batch: Array) -> str:
    """Returns the digest of weights and images."""
    found = hashlib.blake2b(digest_size=16)
    for key in sorted(state_dict):
        found.update(f"{key} {state_dict[key].shape}".encode())
        found.update(np.ascontiguousarray(state_dict[key], "<f4").data)
    found.update(np.ascontiguousarray(batch, "<f4").data)
    return found.hexdigest()


def sketch(key: str, array: Array) -> Array:
    """Returns the sketch of an array, `[SKETCH]` float64."""
    flat = np.asarray(array, np.float64).ravel()
    signs = np.unpackbits(bits(f"signs of {key}", -(-flat.size // 32)).astype("<u4").view(np.uint8))[: flat.size]
    padded = np.zeros(-(-flat.size // SKETCH) * SKETCH)
    padded[: flat.size] = np.where(signs, flat, -flat)
    return padded.reshape(-1, SKETCH).sum(axis=0)


def floors(norms: Mapping[str, float]) -> dict[str, float]:
    """Returns the length that the difference of each value is measured by, from the lengths of all.

    It is the value's own; of gradients at least a thousandth of the longest one's, since the gradient of a bias before
    a batch norm is nothing but rounding.
    """
    longest = max((norm for key, norm in norms.items() if key.startswith("gradients/")), default=0.0)
    return {key: max(norm, 1e-3 * longest if key.startswith("gradients/") else 0.0) for key, norm in norms.items()}


def apart(found: Array, expected: Array, length: float) -> float:
    """Returns how far arrays, or their sketches, are apart, relative to a length."""
    return float(np.linalg.norm(np.ravel(found) - np.ravel(expected)) / length)


def of_batch(before: Array, after: Array, momentum: float) -> Array:
    """Returns the batch's statistics of which `after = (1 - momentum) * before + momentum * batch`."""
    return (after.astype(np.float64) - (1 - momentum) * before) / momentum


def unbiased(variance: Array, count: int) -> Array:
    """Returns the variance as PyTorch's running one has it: n / (n - 1) times ours, by which it normalises too."""
    return variance * count / (count - 1)


def evaluate(name: str, state_dict: Mapping[str, Array], batch: Array, names: Iterable[str]) -> dict[str, Array]:
    """Returns our `logits`, and those of our `features/...` that are named, channels first."""
    model = create(name)
    wanted = [key.removeprefix("features/") for key in names if key.startswith("features/")]

    def forward(variables: Any, pixels: jax.Array) -> Any:
        found = features(model, variables, pixels)
        return model.apply(variables, pixels, train=False), {key: found[key] for key in wanted}

    logits, found = _fast(forward)(from_torch(name, state_dict), batch.transpose(0, 2, 3, 1))
    channels_first = {f"features/{key}": np.moveaxis(np.asarray(value), -1, 1) for key, value in found.items()}
    return {"logits": np.asarray(logits), **channels_first}


def train(name: str, state_dict: Mapping[str, Array], batch: Array, norms: Mapping[str, Norm]) -> dict[str, Array]:
    """Returns our `loss`, `gradients/...` and `statistics/...` of a training step without dropout.

    Statistics are those of the batch alone, the variance with PyTorch's factor.
    """
    none = {key: 0.0 for key in ("dropout", "drop_path") if hasattr(MODELS[name].module, key)}
    model = create(name, **none)
    variables = from_torch(name, state_dict)
    pixels, labels = batch.transpose(0, 2, 3, 1), jnp.arange(len(batch))

    def loss(params: Any, stats: Any) -> tuple[jax.Array, Any]:
        given = {"params": params, **stats}
        logits, updated = model.apply(given, pixels, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels]), updated

    stats = {key: value for key, value in variables.items() if key != "params"}
    (value, updated), gradient = _fast(jax.value_and_grad(loss, has_aux=True))(variables["params"], stats)
    gradients, after = to_torch(name, {**stats, "params": gradient}), to_torch(name, {**variables, **updated})
    found: dict[str, Array] = {"loss": np.asarray(value)}
    decay = getattr(model, "batch_decay", 0.9)
    for key, before in state_dict.items():
        module, _, leaf = key.rpartition(".")
        if leaf.startswith("running_"):
            batchs = of_batch(before, after[key], 1 - decay)
            found[f"statistics/{key}"] = unbiased(batchs, norms[module].count) if leaf == "running_var" else batchs
        else:
            found[f"gradients/{key}"] = gradients[key]
    return found


def _fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles: most of the time goes into that, and half of it into a speed that one step has no use for."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
