"""`convjax predict RUN_OR_WEIGHTS IMAGE...`: what a network sees in image files."""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.table import Table

from convjax.cli.arguments import Checkpoint
from convjax.cli.console import console
from convjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Arguments(Checkpoint):
    """Classifies image files (PNG, JPEG, ...): the five likeliest classes of each.

    RUN may also be a directory that `convjax weights import` made.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")] = ()
    """Image files; resized and cropped to the size that the network was trained on."""


def run(arguments: list[str]) -> None:
    """Prints the five likeliest classes of each image with their probabilities."""
    parsed = tyro.cli(Arguments, prog="convjax predict", args=arguments)
    which = parsed.which()
    if not parsed.images:
        raise UsageError("predict needs image files after the run's directory")

    # Orbax takes a second to import: not before the arguments are known to be right.
    from convjax import compiled
    from convjax.data import images
    from convjax.ops import cpu
    from convjax.train import weights

    compiled.keep()
    network = weights.of(parsed.run, which)
    pixels = np.stack([images.read(path, *network.image, network.crop) for path in parsed.images])
    with cpu.switched_on():
        probabilities = network.probabilities(pixels)

    out = console()
    for path, row in zip(parsed.images, probabilities, strict=True):
        table = Table(box=None, show_header=False)
        for i in np.argsort(-row, kind="stable")[:5]:
            table.add_row(f"{100 * row[i]:6.2f} %", network.class_names[i])
        out.print(str(path), soft_wrap=True)
        out.print(table)
