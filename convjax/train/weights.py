"""Weights by themselves: a directory with a network's variables, and all that is needed to use them."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from convjax.data.images import Crop
from convjax.data.splits import Normalise
from convjax.errors import RunError, UsageError
from convjax.ops.epilogue import with_epilogues
from convjax.train import experiment
from convjax.train.checkpoint import Which
from convjax.train.config_json import model_from_json, to_json
from convjax.train.evaluate import Trained
from convjax.train.run import Run

_VARIABLES, _DESCRIPTION = "weights.safetensors", "weights.json"


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network with its variables.

    Attributes:
        model: the network.
        image: (height, width, channels).
        class_names: name of each class.
        normalise: what is done to pixels.
        crop: how images are brought to size.
        source: file, its digest, and library, of what was imported.
        variables: `params`, and `batch_stats` where there are some.
    """

    model: nn.Module
    image: tuple[int, int, int]
    class_names: tuple[str, ...]
    normalise: Normalise
    crop: Crop
    source: Mapping[str, str]
    variables: Mapping[str, Any]

    @staticmethod
    def are_in(directory: Path) -> bool:
        """Says whether a directory holds weights."""
        return (directory / _DESCRIPTION).is_file()

    def logits(self, variables: Any, images: jax.Array) -> jax.Array:
        """Returns the logits, `[N, K]`, that the network has with these variables for uint8 images `[N, H, W, C]`."""
        return jnp.asarray(self.model.apply(variables, self.normalise(images), train=False))

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the probability of each class, `[N, K]`, for uint8 images `[N, H, W, C]`."""
        return self.classifier()(images)

    def classifier(self) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
        """Returns `probabilities` as a function that is compiled once for all calls with as many images."""

        @jax.jit
        def softmax(variables: Any, images: jax.Array) -> jax.Array:
            return jax.nn.softmax(with_epilogues(self.logits)(variables, images))

        return lambda images: np.asarray(softmax(self.variables, images))

    def description(self) -> dict[str, Any]:
        """Returns all but the variables, as JSON has it."""
        return {
            "model": to_json(self.model),
            "image": self.image,
            "class_names": self.class_names,
            "normalise": dataclasses.asdict(self.normalise),
            "crop": dataclasses.asdict(self.crop),
            "source": dict(self.source),
        }

    def write(self, directory: Path) -> None:
        """Writes a directory, whole or not at all.

        Raises:
            UsageError: it exists already, or cannot be written.
        """
        if directory.exists():
            raise UsageError(f"{directory} exists already: take another name")
        arrays = {key: np.asarray(value) for key, value in flat(self.variables).items()}
        temporary = directory.with_name(f".{directory.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            safetensors.numpy.save_file(arrays, temporary / _VARIABLES)
            (temporary / _DESCRIPTION).write_text(json.dumps(self.description(), indent=2) + "\n")
            temporary.rename(directory)
        except (OSError, safetensors.SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise UsageError(f"{directory} cannot be written: {error}") from error

    @classmethod
    def read(cls, directory: Path) -> "Weights":
        """Reads a directory that `write` wrote.

        Raises:
            UsageError: it holds no weights.
            RunError: it is damaged.
        """
        if not cls.are_in(directory):
            raise UsageError(f"{directory} holds no weights: it has no {_DESCRIPTION}")
        try:
            found = json.loads((directory / _DESCRIPTION).read_text())
            arrays = safetensors.numpy.load_file(directory / _VARIABLES)
            normalise = Normalise(**{key: tuple(value) for key, value in found["normalise"].items()})
            weights = cls(
                model=model_from_json(found["model"]),
                image=tuple(found["image"]),
                class_names=tuple(found["class_names"]),
                normalise=normalise,
                crop=Crop(**found["crop"]),
                source=found["source"],
                variables=flax.traverse_util.unflatten_dict(arrays, sep="/"),
            )
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise RunError(f"{directory} is damaged: {type(error).__name__}: {error}") from error
        weights._check(directory)
        return weights

    def _check(self, directory: Path) -> None:
        """Makes sure that the variables are those of the model."""
        shapes = jax.eval_shape(lambda: self.model.init(jax.random.key(0), np.zeros((1, *self.image)), train=False))
        expected = {key: value.shape for key, value in flat(shapes).items()}
        if expected != {key: np.shape(value) for key, value in flat(self.variables).items()}:
            raise RunError(f"{directory} is damaged: {_VARIABLES} does not hold the variables of the model")


def of(directory: Path, which: Which = "best") -> Weights:
    """Returns the weights in a directory: imported ones, or those of a run's checkpoint.

    Raises:
        UsageError: it holds neither.
        RunError: it is damaged.
    """
    if Weights.are_in(directory):
        return Weights.read(directory)
    if directory.is_dir() and not Run(directory).exists():
        raise UsageError(f"{directory} holds neither weights nor a run: it has no {_DESCRIPTION} and no config.json")
    with experiment.apart():
        return of_trained(Trained.read(Run(directory), which), directory.name)


def of_trained(trained: Trained, name: str) -> Weights:
    """Returns the weights of a network read back from the run of a name."""
    return Weights(
        model=trained.config.model,
        image=trained.info.image,
        class_names=trained.info.class_names,
        normalise=trained.info.normalise,
        crop=trained.config.data.crop,
        source={"run": name, "checkpoint": str(trained.checkpoint)},
        variables=jax.device_get(trained.state.evaluated()),
    )


def flat(tree: Any) -> dict[str, Any]:
    """Returns variables by path, as `params/stem/conv/kernel`."""
    return dict(flax.traverse_util.flatten_dict(tree, sep="/"))
