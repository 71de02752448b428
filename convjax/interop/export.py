"""Networks as files that run without convjax: preprocessing and network in one, for any number of images."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import jax
import numpy as np
import safetensors.numpy

import convjax
from convjax.errors import UsageError, model_error
from convjax.files import write_whole
from convjax.interop.fold import fold
from convjax.interop.torch_families import Library
from convjax.interop.torch_names import to_torch
from convjax.models import Model
from convjax.train.weights import Weights

Format: TypeAlias = Literal["stablehlo", "onnx", "safetensors"]

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(weights: Weights, file: Path, to: Format, *, library: Library | None = None) -> None:
    """Writes a network, the whole file or nothing.

    `stablehlo` and `onnx` take uint8 images `[N, H, W, C]` to float32 logits `[N, K]`, N being free; `safetensors`
    holds the variables alone, with the names of a library of PyTorch.

    Raises:
        UsageError: the network cannot be written in this format, the package that it needs is missing, or the file
            cannot be written.
    """
    if to == "safetensors":
        contents = {file: as_safetensors(weights, library)}
    elif to == "onnx":
        contents = {file: as_onnx(weights)}
    else:
        beside = (json.dumps(description(weights), indent=2) + "\n").encode()
        contents = {sidecar(file): beside, file: as_stablehlo(weights)}
    for name, content in contents.items():
        try:
            write_whole(name, content)
        except OSError as error:
            raise UsageError(f"{name} cannot be written: {error.strerror}") from error


def sidecar(file: Path) -> Path:
    """Returns the file beside one of StableHLO that describes it."""
    return file.with_name(f"{file.name}.json")


def description(weights: Weights) -> dict[str, Any]:
    """Returns what whoever runs the file must know, as JSON has it."""
    height, width, channels = weights.image
    colours = {1: "grey", 3: "red, green, blue"}.get(channels, f"{channels} channels")
    return {
        "convjax": convjax.__version__,
        "input": f"images: uint8 [batch, {height}, {width}, {channels}], {colours} from 0 to 255, resized and cropped "
        "as crop says; normalise is done inside",
        "output": f"logits: float32 [batch, {len(weights.class_names)}], in the order of class_names",
        **weights.description(),
    }


def as_stablehlo(weights: Weights) -> bytes:
    """Returns a network as `jax.export` serialises it: StableHLO for CPU, CUDA, ROCm and TPU, variables included.

    Raises:
        UsageError: the network takes only certain numbers of images.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *weights.image), np.uint8)
    function = jax.jit(lambda images: weights.logits(weights.variables, images))
    try:
        exported = jax.export.export(function, platforms=_PLATFORMS)(images)
    except Exception as error:
        raise model_error(error, images.shape) from error
    return bytes(exported.serialize())


def as_onnx(weights: Weights) -> bytes:
    """Returns a network as ONNX, which computes in float32 whatever the model does, with its batch norms folded.

    Raises:
        UsageError: the package `onnx` is missing, or the network has what is not written as ONNX.
    """
    try:
        from convjax.interop.onnx_file import to_onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise UsageError("--to onnx needs the package onnx: pip install 'convjax[onnx]'") from error

    model, variables = weights.model, weights.variables
    # A user's own module need not have these fields.
    if isinstance(model, Model):
        model = model.clone(dtype="float32")
        if model.norm == "batch" and "batch_stats" in variables:
            with contextlib.suppress(UsageError):  # with norms of its own it is written as it is
                model, variables = fold(model, variables, weights.image)
    network = dataclasses.replace(weights, model=model, variables=variables)
    return to_onnx(network.logits, variables, weights.image, description(weights))


def as_safetensors(weights: Weights, library: Library | None = None) -> bytes:
    """Returns the variables as safetensors with a library's names; by default those that the model follows.

    Raises:
        UsageError: the library has no such network.
    """
    model = cast(Model, weights.model)
    return safetensors.numpy.save(to_torch(model, weights.variables, library=library, image=weights.image))
