"""Weights by themselves: a directory with a network's variables, and all that is needed to use them."""

import dataclasses
import importlib.resources
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from convjax.data.images import Crop
from convjax.data.splits import Normalise
from convjax.digest import digest
from convjax.errors import RunError, UsageError
from convjax.interop import torch_files
from convjax.interop.layout import Array
from convjax.interop.torch_families import Library
from convjax.interop.torch_names import from_torch, to_torch
from convjax.models import MODELS, EfficientNet, Model, create
from convjax.train.checkpoint import Which
from convjax.train.config_json import model_from_json, to_json
from convjax.train.evaluate import Trained
from convjax.train.run import Run

_VARIABLES, _DESCRIPTION = "weights.safetensors", "weights.json"
_WRAPPED = ("state_dict", "model", "model_state_dict")
"""Under what names training programs keep the state dict among other things."""
_IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of torchvision's weights, and most others."""


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

    model: Model
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

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the probability of each class, `[N, K]`, for uint8 images `[N, H, W, C]`."""
        return self.classifier()(images)

    def classifier(self) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
        """Returns `probabilities` as a function that is compiled once for all calls with as many images."""

        @jax.jit
        def softmax(variables: Any, images: jax.Array) -> jax.Array:
            logits: Any = self.model.apply(variables, self.normalise(images), train=False)
            return jax.nn.softmax(logits)

        return lambda images: np.asarray(softmax(self.variables, images))

    def write(self, directory: Path) -> None:
        """Writes a directory, whole or not at all.

        Raises:
            UsageError: it exists already, or cannot be written.
        """
        if directory.exists():
            raise UsageError(f"{directory} exists already: take another name")
        flat = {key: np.asarray(value) for key, value in _flat(self.variables).items()}
        description = {
            "model": to_json(self.model),
            "image": self.image,
            "class_names": self.class_names,
            "normalise": dataclasses.asdict(self.normalise),
            "crop": dataclasses.asdict(self.crop),
            "source": dict(self.source),
        }
        temporary = directory.with_name(f".{directory.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            safetensors.numpy.save_file(flat, temporary / _VARIABLES)
            (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
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
            flat = safetensors.numpy.load_file(directory / _VARIABLES)
            normalise = Normalise(**{key: tuple(value) for key, value in found["normalise"].items()})
            weights = cls(
                model=cast(Model, model_from_json(found["model"])),
                image=tuple(found["image"]),
                class_names=tuple(found["class_names"]),
                normalise=normalise,
                crop=Crop(**found["crop"]),
                source=found["source"],
                variables=flax.traverse_util.unflatten_dict(flat, sep="/"),
            )
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise RunError(f"{directory} is damaged: {type(error).__name__}: {error}") from error
        weights._check(directory)
        return weights

    def _check(self, directory: Path) -> None:
        """Makes sure that the variables are those of the model."""
        shapes = jax.eval_shape(lambda: self.model.init(jax.random.key(0), np.zeros((1, *self.image)), train=False))
        expected = {key: value.shape for key, value in _flat(shapes).items()}
        if expected != {key: np.shape(value) for key, value in _flat(self.variables).items()}:
            raise RunError(f"{directory} is damaged: {_VARIABLES} does not hold the variables of the model")


def of(directory: Path, which: Which = "best") -> Weights:
    """Returns the weights in a directory: imported ones, or those of a run's checkpoint.

    Raises:
        UsageError: it holds neither.
        RunError: it is damaged.
    """
    if Weights.are_in(directory):
        return Weights.read(directory)
    return of_trained(Trained.read(Run(directory), which), directory.name)


def of_trained(trained: Trained, name: str) -> Weights:
    """Returns the weights of a network read back from the run of a name."""
    return Weights(
        model=cast(Model, trained.config.model),
        image=trained.info.image,
        class_names=trained.info.class_names,
        normalise=trained.info.normalise,
        crop=Crop(),
        source={"run": name, "checkpoint": str(trained.checkpoint)},
        variables=jax.device_get(trained.state.evaluated()),
    )


def import_file(
    file: Path, name: str, *, library: Library | None = None, size: int | None = None, **fields: Any
) -> Weights:
    """Returns the weights of a named model that a file of PyTorch or of safetensors holds.

    Nothing in the file is run. Images are taken as the published weights take them: with the means and deviations
    of ImageNet, 0.875 of an image's sides; EfficientNet-Lite as its authors do, bicubic and with 127 and 128 of 255.

    Args:
        file: .safetensors, or what torch.save wrote.
        name: of the model.
        library: whose names the file has; None for those that the model follows.
        size: side of images in pixels; None for the model's usual one.
        fields: of the model that differ.

    Raises:
        UsageError: the file is refused, or does not fit the model: its entries are listed by name.
    """
    state_dict = read_state_dict(file)
    model = create(name, **fields)
    height, width, channels = MODELS[name].image
    image = (size or height, size or width, channels)
    lite = isinstance(model, EfficientNet) and model.variant == "lite"
    try:
        variables = from_torch(model, state_dict, library=library, image=image)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    return Weights(
        model=model,
        image=image,
        class_names=class_names(model.num_classes),
        normalise=Normalise((127 / 255,) * 3, (128 / 255,) * 3) if lite else _IMAGENET,
        crop=Crop(0.875, "bicubic" if isinstance(model, EfficientNet) else "bilinear"),
        source={"file": file.name, "digest": digest(file.read_bytes()), "library": library or ""},
        variables=variables,
    )


def export_file(weights: Weights, file: Path, *, library: Library | None = None) -> None:
    """Writes weights as safetensors with a library's names, the whole file or nothing.

    Raises:
        UsageError: the library has no such network, or the file cannot be written.
    """
    state_dict = to_torch(weights.model, weights.variables, library=library, image=weights.image)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        safetensors.numpy.save_file(state_dict, temporary)
        temporary.replace(file)
    except (OSError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"{file} cannot be written: {error}") from error


def read_state_dict(file: Path) -> dict[str, Array]:
    """Returns the arrays of a file by name, without running what is in it.

    Raises:
        UsageError: the file is missing, damaged, refused, or holds no state dict.
    """
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file")
    if file.suffix == ".safetensors":
        try:
            return dict(safetensors.numpy.load_file(file))
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise UsageError(f"{file} is no safetensors file, or is damaged: {error}") from error
    content = torch_files.read(file)
    for key in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UsageError(f"{file} holds no state dict, but {type(content).__name__}")
    others = [
        str(key) for key, value in content.items() if not isinstance(key, str) or not isinstance(value, np.ndarray)
    ]
    if others:
        raise UsageError(f"{file} holds no state dict: {', '.join(others[:10])} are no tensors")
    # torch.nn.DataParallel puts a prefix before all names.
    parallel = all(key.startswith("module.") for key in content)
    return {key.removeprefix("module.") if parallel else key: value for key, value in content.items()}


def class_names(count: int) -> tuple[str, ...]:
    """Returns the names of so many classes: ImageNet's where they are 1000, else their numbers."""
    if count != 1000:
        return tuple(map(str, range(count)))
    text = (importlib.resources.files("convjax.data") / "imagenet_classes.txt").read_text()
    return tuple(line.split(" ", 1)[1] for line in text.splitlines())


def _flat(tree: Any) -> dict[str, Any]:
    return dict(flax.traverse_util.flatten_dict(tree, sep="/"))
