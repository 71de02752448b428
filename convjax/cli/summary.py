"""`convjax summary MODEL_OR_EXPERIMENT_OR_RUN`: a network layer by layer."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from convjax.cli.arguments import require_at_least
from convjax.cli.console import console

if TYPE_CHECKING:
    from convjax.inspect.summary import Layer


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Lists a network's layers: class, output, parameters, multiply-accumulates, bytes of activations.

    After an experiment's file or a model's name, the configuration's fields are flags too, as --model.width 32.
    """

    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL|EXPERIMENT|RUN")]
    """One of the models that `convjax models` lists, an experiment's file, or the directory of a run."""
    size: int | None = None
    """Side of the images in pixels; None takes the size that the model is published for, or that of the data."""
    batch: int = 1
    """Number of images that outputs, multiply-accumulates and activations are given for."""
    depth: int = 1
    """How many levels of modules to list, each with all that is inside of it; 0 lists the whole model."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        require_at_least(self, size=1, batch=1, depth=0)


def run(arguments: list[str]) -> None:
    """Prints the table of layers, and their sums."""
    parsed, flags = tyro.cli(Arguments, prog="convjax summary", args=arguments, return_unknown_args=True)

    # JAX is imported only now: --help need not wait for it.
    from convjax.cli.network import named
    from convjax.inspect import summary

    _, config, image = named("summary", parsed.network, flags)
    image = (parsed.size or image[0], parsed.size or image[1], image[2])
    every = summary.layers(config.model, image, parsed.batch)
    rows = summary.collapse(every, parsed.depth)
    if parsed.json:
        total = {"parameters": 0, "multiply_accumulates": 0, "activation_bytes": 0}
        total = {key: sum(getattr(layer, key) for layer in rows) for key in total}
        content = {"image": image, "batch": parsed.batch, "layers": [dataclasses.asdict(row) for row in rows], **total}
        print(json.dumps(content))
    else:
        _print(type(config.model).__name__, image, parsed.batch, rows)


def _print(model: str, image: tuple[int, int, int], batch: int, rows: Sequence["Layer"]) -> None:
    out = console()
    images = "1 image" if batch == 1 else f"{batch} images"
    out.print(f"{model} on {images} of {' x '.join(map(str, image))}, in evaluation mode")
    table = Table("layer", "class", "output", "parameters", "multiply-accumulates", "activations", box=None)
    table.header_style = "bold"
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        output = "not called" if not row.kind else "" if row.output is None else " x ".join(map(str, row.output))
        table.add_row(row.path or "(the model)", row.kind, output, *_numbers([row]))
    table.add_row("total", "", "", *_numbers(rows), style="bold")
    out.print(table)


def _numbers(rows: Sequence["Layer"]) -> tuple[str, str, str]:
    return (
        f"{sum(row.parameters for row in rows):,}",
        f"{sum(row.multiply_accumulates for row in rows):,}",
        f"{sum(row.activation_bytes for row in rows) / 2**10:,.1f} KiB",
    )
