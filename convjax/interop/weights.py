"""Weights out of files of PyTorch and of safetensors, and into the latter."""

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from convjax.data.images import Crop
from convjax.data.splits import Normalise
from convjax.digest import digest
from convjax.errors import UsageError
from convjax.interop import torch_files
from convjax.interop.layout import Array
from convjax.interop.torch_families import Library, differing_fields
from convjax.interop.torch_names import from_torch
from convjax.models import MODELS, EfficientNet, create
from convjax.train.weights import Weights

_WRAPPED = ("state_dict", "model", "model_state_dict")
"""Under what names training programs keep the state dict among other things."""
_IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of torchvision's weights, and most others."""


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
    model = create(name, **{**differing_fields(create(name), library), **fields})
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
