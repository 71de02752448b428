"""`convjax inspect RUN_OR_WEIGHTS IMAGE...`: pictures of what a network sees."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from convjax.cli.arguments import Checkpoint
from convjax.cli.console import console
from convjax.errors import UsageError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from convjax.inspect.gallery import Method, Picture
    from convjax.train.weights import Weights

_EVERY = 10.0
"""Seconds between two lines about what takes long."""


@dataclasses.dataclass(frozen=True)
class Arguments(Checkpoint):
    """Draws what a network has learned, and what it sees in image files, as PNG files.

    Without a look at images: filters (of the first layer), exciting (the patches of the data set that excite a
    channel most, as large as what it sees), optimised (images made to excite a channel).

    Of each image: features (the feature maps of a layer), and where its class comes from: gradient, smoothgrad,
    integrated (gradients), occlusion, gradcam and gradcam++ at each layer.

    RUN may also be a directory that `convjax weights import` made; exciting then searches the images given.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")] = ()
    """Image files; resized and cropped to the size that the network was trained on."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="DIR")] = None
    """Directory to write into, made if need be; None takes inspect-NAME, NAME being that of the run's directory."""
    methods: tuple[str, ...] = ()
    """What to draw; none names all."""
    layers: str | None = None
    """Pattern of layers, as "stage2*" or "stage*_block1/conv2"; None takes the stages and the parts beside them."""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """The class that is asked about; None takes the likeliest of each image."""
    channels: int = 16
    """Channels of each layer to draw exciting patches and optimised images for: the first ones."""
    split: Literal["train", "validation", "test"] = "train"
    """Of the run's data, where exciting patches are searched."""
    examples: int = 2000
    """How many examples of the split to search, the first ones."""

    def __post_init__(self) -> None:
        for name in ("channels", "examples"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} is {getattr(self, name)}: it must be at least 1")


def run(arguments: list[str]) -> None:
    """Writes the pictures, and prints of each its file and what it shows."""
    parsed = tyro.cli(Arguments, prog="convjax inspect", args=arguments)
    which = parsed.which()

    # Orbax takes a second to import: not before the arguments are known to be right.
    from convjax import compiled
    from convjax.data import images
    from convjax.ops import cpu
    from convjax.train import weights

    compiled.keep()
    methods = _methods(parsed)
    network = weights.of(parsed.run, which)
    label = _label(parsed, network.class_names)
    pixels = [images.read(path, *network.image, network.crop) for path in parsed.images]
    directory = parsed.out or Path(f"inspect-{parsed.run.resolve().name}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {directory} cannot be made: {error.strerror}") from error

    out = console()
    out.print(f"{type(network.model).__name__} of {parsed.run}; pictures in {directory}", soft_wrap=True)
    count = 0
    with cpu.switched_on():
        for picture in _pictures(parsed, network, methods, label, pixels):
            picture.image.save(directory / f"{picture.name}.png")
            out.print(f"  {picture.name}.png  {picture.shows}", soft_wrap=True)
            count += 1
    if not count:
        what = ", ".join(methods)
        raise UsageError(f"there is nothing to draw for {what}: the network has no layer that sees or returns images")
    out.print(f"{count} pictures" if count != 1 else "1 picture")


def _pictures(
    parsed: Arguments,
    network: "Weights",
    methods: "tuple[Method, ...]",
    label: int | None,
    pixels: "list[NDArray[np.uint8]]",
) -> Iterator["Picture"]:
    from convjax.inspect import gallery

    parts = gallery.layers(network, parsed.layers)
    for name, image in zip(_names(parsed.images), pixels, strict=True):
        yield from gallery.of_image(network, name, image, label, methods, parts)
    if "exciting" in methods and (searched := _searched(parsed, pixels)) is not None:
        yield from gallery.of_data(network, searched, parts, parsed.channels, advanced=_Progress(len(searched)))
    yield from gallery.of_network(network, methods, parts, parsed.channels)


class _Progress:
    """Tells now and then how far a search is."""

    def __init__(self, total: int) -> None:
        self._total, self._told = total, time.monotonic()

    def __call__(self, part: str, done: int) -> None:
        if time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            console().print(f"  ... {part}: {done} of {self._total} images searched")


def _searched(parsed: Arguments, given: "list[NDArray[np.uint8]]") -> "NDArray[np.uint8] | None":
    """Returns the images to search for what excites channels: the run's, of weights alone those that were given."""
    import numpy as np

    from convjax.train.evaluate import load_same_data
    from convjax.train.run import Run
    from convjax.train.weights import Weights

    if Weights.are_in(parsed.run):
        return np.stack(given) if given else None
    run = Run(parsed.run)
    found = load_same_data(run.read_config(), run.read_info(), run).splits[parsed.split].images
    if not len(found):
        raise UsageError(f"--split is {parsed.split}: the run has no such split, data.validation is 0")
    return found[: parsed.examples]


def _methods(parsed: Arguments) -> "tuple[Method, ...]":
    """Returns the methods asked for, in the order of their list; without images all that need none."""
    from convjax.inspect.gallery import METHODS, OF_IMAGES

    for name in parsed.methods:
        if name not in METHODS:
            raise UsageError(f"there is no method {name!r}: {nearest(name, list(METHODS))}")
        if name in OF_IMAGES and not parsed.images:
            raise UsageError(f"method {name} needs image files after the run's directory")
    possible = METHODS if parsed.images else [method for method in METHODS if method not in OF_IMAGES]
    return tuple(method for method in possible if method in (parsed.methods or METHODS))


def _label(parsed: Arguments, class_names: tuple[str, ...]) -> int | None:
    if parsed.class_name is None:
        return None
    if parsed.class_name not in class_names:
        raise UsageError(f"there is no class {parsed.class_name!r}: {nearest(parsed.class_name, list(class_names))}")
    return class_names.index(parsed.class_name)


def _names(paths: tuple[Path, ...]) -> list[str]:
    """Returns what to call the images: the names of their files, numbered where two are the same."""
    stems = [path.stem for path in paths]
    return [f"{i}-{stem}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems, start=1)]
