"""`convjax models`: the table of named models."""

import tyro
from rich.table import Table

from convjax.cli.console import console


def run(arguments: list[str]) -> None:
    """Prints name, parameters, multiply-accumulates at the usual size, and paper of each named model."""
    tyro.cli(_describe, prog="convjax models", args=arguments)

    # Flax is imported only now: --help need not wait for it.
    from convjax.models import MODELS, counts

    table = Table(
        "name", "parameters", "multiply-accumulates", "image", "classes", "paper", box=None, header_style="bold"
    )
    for column in table.columns[1:4]:
        column.justify = "right"
    known = counts()
    for name, entry in MODELS.items():
        table.add_row(
            name,
            f"{known[name].parameters:,}",
            f"{known[name].multiply_accumulates / 1e6:,.1f} M",
            "x".join(map(str, entry.image)),
            str(entry.module.num_classes),
            entry.paper,
        )
    console().print(table)


def _describe() -> None:
    """Lists the named models: parameters, multiply-accumulates for one image, and the paper.

    Counts are those of the models as named; `convjax summary NAME --model.FIELD VALUE` counts variants, layer by layer.
    """
