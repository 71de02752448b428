"""What certifies that a named network is the one of PyTorch's libraries, in a form that needs no PyTorch.

A certificate holds what the library computed in float64 from weights and images that anyone can draw again (drawn.py):
the logits as they are, and of each longer array its norm and a sketch. As in a count sketch (Charikar et al. 2002),
entry i of an array adds to number i mod 4 of its sketch with a random sign: a sketch is linear, and as long as its
array on average, so that the difference of two sketches tells how far apart their arrays are.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from drawn import bits

from convjax.inspect.features import features
from convjax.interop.layout import Array
from convjax.interop.torch_names import from_torch, to_torch
from convjax.models import MODELS, create

DIRECTORY = Path(__file__).parent / "models" / "certificates"
REPLAYED = {
    "airbench94", "convnext_tiny", "efficientnet_b0", "efficientnet_lite0", "googlenet", "mobilenet_v2",
    "mobilenet_v3_small", "plain20", "resnet18", "resnet20", "resnetv2_20", "seresnet18",
}  # fmt: skip
"""Networks of which it takes seconds, a member or two of most families; the others' replays are slow."""
SKETCH = 4
"""Numbers of a sketch."""
ONE_BY_ONE = {"resnetv2_1001"}
"""Networks whose operations are compiled one by one: the training step as one program takes XLA more than 24 GB."""


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


def momentum(name: str) -> float:
    """Returns the share of the batch's statistics in our new running ones, as PyTorch counts it."""
    return 1 - float(getattr(MODELS[name].module, "batch_decay", 0.9))


def evaluate(name: str, state_dict: Mapping[str, Array], batch: Array, names: Iterable[str]) -> dict[str, Array]:
    """Returns our `logits`, and those of our `features/...` that are named, channels first."""
    model = create(name)
    wanted = [key.removeprefix("features/") for key in names if key.startswith("features/")]

    def forward(variables: Any, pixels: jax.Array) -> Any:
        found = features(model, variables, pixels)
        return model.apply(variables, pixels, train=False), {key: found[key] for key in wanted}

    logits, found = _fast(name, forward)(from_torch(name, state_dict), batch.transpose(0, 2, 3, 1))
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
    (value, updated), gradient = _fast(name, jax.value_and_grad(loss, has_aux=True))(variables["params"], stats)
    gradients, after = to_torch(name, {**stats, "params": gradient}), to_torch(name, {**variables, **updated})
    found: dict[str, Array] = {"loss": np.asarray(value)}
    for key, before in state_dict.items():
        module, _, leaf = key.rpartition(".")
        if leaf.startswith("running_"):
            batchs = of_batch(before, after[key], momentum(name))
            found[f"statistics/{key}"] = unbiased(batchs, norms[module].count) if leaf == "running_var" else batchs
        else:
            found[f"gradients/{key}"] = gradients[key]
    return found


def _fast(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles: most of the time goes into that, and half of it into a speed that one step has no use for."""
    if name in ONE_BY_ONE:
        return function
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
