"""`convjax eval RUN`: a checkpoint's numbers on a split."""

import dataclasses
import json
from typing import TYPE_CHECKING, Literal

import tyro
from rich.table import Table

from convjax.cli.arguments import Checkpoint
from convjax.cli.console import console
from convjax.errors import UsageError

if TYPE_CHECKING:
    from convjax.data.sources import Split
    from convjax.train.evaluate import Trained
    from convjax.train.metrics import Evaluation


@dataclasses.dataclass(frozen=True)
class Arguments(Checkpoint):
    """Evaluates a run's checkpoint on a split of its data set.

    RUN may also be a directory of weights that `convjax average` made.
    """

    split: Literal["test", "validation", "train"] = "test"
    """Which examples to score."""
    views: Literal["plain", "flip", "flip_shift"] = "plain"
    """Average logits over the image and its mirror image, or also over both moved by a pixel each way."""
    shift: int | None = None
    """Instead, accuracy as the images are shifted by 0 to so many pixels, in four directions."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(arguments: list[str]) -> None:
    """Prints loss, top-1, top-5, calibration error, accuracy by class and the confusion matrix."""
    parsed = tyro.cli(Arguments, prog="convjax eval", args=arguments)
    which = parsed.which()

    # Orbax takes a second to import: not before the arguments are known to be right.
    from convjax import compiled
    from convjax.train import average
    from convjax.train.evaluate import Trained, load_same_data
    from convjax.train.run import Run
    from convjax.train.weights import Weights

    compiled.keep()
    if Weights.are_in(parsed.run):
        network, run = average.read(parsed.run)
        weights = "averaged weights"
    else:
        run = Run(parsed.run)
        network = Trained.read(run, which)
        weights = f"checkpoint of step {network.checkpoint}"
    network = network.seen_as(parsed.views)
    data = load_same_data(network.config, network.info, run)
    if not len(data.splits[parsed.split]):
        raise UsageError(f"--split is {parsed.split}: the run has no such split, data.validation is 0")
    if parsed.shift is not None:
        _shift(network, data.splits[parsed.split], parsed, weights)
        return
    evaluation = network.evaluate(parsed.split, data.splits[parsed.split])
    if parsed.json:
        print(json.dumps(dataclasses.asdict(evaluation)))
    else:
        _print(evaluation, weights)


def _shift(network: "Trained", split: "Split", parsed: Arguments, weights: str) -> None:
    """Prints accuracy and agreement by shift."""
    from convjax.inspect import shift

    assert parsed.shift is not None
    found = shift.curve(network, split, parsed.shift)
    if parsed.json:
        print(json.dumps([dataclasses.asdict(row) for row in found]))
        return
    out = console()
    out.print(f"{parsed.split} split, {len(split)} examples, {weights}")
    table = Table("shift", "accuracy", "same answer as unshifted", box=None, header_style="bold")
    for row in found:
        table.add_row(f"{row.pixels} px", f"{100 * row.accuracy:.2f} %", f"{100 * row.agreement:.2f} %")
    out.print(table)
    out.print("means over shifts to the right, the left, down and up; what comes into view is 0")


def _print(evaluation: "Evaluation", weights: str) -> None:
    out = console()
    out.print(f"{evaluation.split} split, {evaluation.examples} examples, {weights}")
    numbers = Table(box=None, show_header=False)
    numbers.add_row("loss", f"{evaluation.loss:.4f}")
    numbers.add_row("accuracy", f"{100 * evaluation.accuracy:.2f} %")
    numbers.add_row("top-5", f"{100 * evaluation.top5:.2f} %")
    numbers.add_row("calibration error", f"{100 * evaluation.calibration_error:.2f} %")
    out.print(numbers)

    classes = list(evaluation.per_class)
    wide = len(classes) > 20
    table = Table("class", "accuracy", box=None, header_style="bold", title="by true class (rows) and prediction")
    if not wide:
        for name in classes:
            table.add_column(name, justify="right")
    for name, row in zip(classes, evaluation.confusion, strict=True):
        share = evaluation.per_class[name]
        counts = [] if wide else [str(count) if count else "." for count in row]
        table.add_row(name, "no example" if share is None else f"{100 * share:.1f} %", *counts)
    out.print(table)
    if wide:
        out.print(f"the confusion matrix of {len(classes)} classes is in the output of --json")
