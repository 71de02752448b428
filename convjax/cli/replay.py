"""`convjax replay RUN --step N`: one step of a run, taken again and looked into."""

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from convjax.cli.console import console
from convjax.errors import RunError, UsageError

if TYPE_CHECKING:
    from convjax.inspect.replay import Replay


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Takes one step of a run again, from the nearest earlier checkpoint on, and shows what happened in it.

    That is the batch (ids, labels, and the images after augmentation as a contact sheet), the loss, the gradient
    norm of each layer, and the largest activations. On the same machine the loss equals the logged one bit for bit.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run; it may still be training."""
    step: int
    """Which step, counted from 1."""
    sheet: Path | None = None
    """Where to write the contact sheet; None writes RUN-step-N.png into the current directory."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(arguments: list[str]) -> None:
    """Prints the step's insides, and fails if a metric is not what the run logged."""
    parsed = tyro.cli(Arguments, prog="convjax replay", args=arguments)

    # Orbax takes a second to import: not before the arguments are known to be right.
    from convjax import compiled
    from convjax.data.sheets import contact_sheet
    from convjax.inspect.replay import replay
    from convjax.train.run import Run

    compiled.keep()
    found = replay(Run(parsed.run), parsed.step)
    sheet = parsed.sheet or Path(f"{parsed.run.resolve().name}-step-{parsed.step}.png")
    try:
        contact_sheet(found.images, found.labels.tolist(), found.class_names).save(sheet)
    except (OSError, ValueError) as error:
        raise UsageError(f"--sheet {sheet} cannot be written: {error}") from error
    if parsed.json:
        content = dataclasses.asdict(found)
        del content["images"], content["class_names"]
        content |= {"ids": found.ids.tolist(), "labels": found.labels.tolist(), "sheet": str(sheet)}
        print(json.dumps(content))
    else:
        _print(found, sheet)
    if different := found.differs():
        raise RunError(f"step {found.step} is not what {parsed.run} logged: {', '.join(different)} differ")


def _print(found: "Replay", sheet: Path) -> None:
    out = console()
    begun = f"the checkpoint of step {found.begun}" if found.begun else "the initial state"
    out.print(f"step {found.step}, taken again from {begun}")
    numbers = Table("", "now", "logged", box=None, header_style="bold")
    for name, value in found.metrics.items():
        if found.logged is None or name not in found.logged:
            logged = "not logged"
        else:
            logged = f"{found.logged[name]!r}" + ("" if name in found.differs() else ", the same bits")
        numbers.add_row(name, repr(value), logged)
    out.print(numbers)
    layers = Table("layer", "gradient norm", box=None, header_style="bold")
    for name, value in found.gradient_norms.items():
        layers.add_row(name, f"{value:.4g}")
    out.print(layers)
    largest = Table("output of", "largest absolute value", box=None, header_style="bold")
    # Whatever is not finite comes first, and in the order of its names.
    ordered = sorted(found.activations.items(), key=lambda item: (not math.isnan(item[1]), -item[1]))
    for name, value in ordered[:10]:
        largest.add_row(name, f"{value:.4g}")
    out.print(largest)
    out.print("ids     " + " ".join(map(str, found.ids)), soft_wrap=True)
    out.print("labels  " + " ".join(found.class_names[label] for label in found.labels), soft_wrap=True)
    out.print(f"images after augmentation drawn in {sheet}", soft_wrap=True)
