"""`convjax average RUN --last N -o DIR`: the mean of a run's last checkpoints, as weights."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convjax.cli.arguments import require_at_least
from convjax.cli.console import console
from convjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Averages the weights of a run's last checkpoints, evaluates the average, and writes it as a directory of weights.

    `convjax eval`, `predict` and `train --init-from` take that directory. The run must have kept so many checkpoints,
    by --train.keep.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Directory to make."""
    last: int = 5
    """How many checkpoints, counted from the latest."""
    statistics: Literal["recompute", "average"] = "recompute"
    """Statistics of batch norms: of training batches, with the averaged weights; or averaged, which needs no data."""
    batches: int | None = None
    """Training batches to recompute statistics from; None takes an epoch's."""

    def __post_init__(self) -> None:
        require_at_least(self, last=1, batches=1)


def run(arguments: list[str]) -> None:
    """Writes the weights, and prints what they are worth."""
    parsed = tyro.cli(Arguments, prog="convjax average", args=arguments)
    if parsed.output.exists():
        raise UsageError(f"{parsed.output} exists already: take another name")

    # JAX is imported only now: --help need not wait for it.
    from convjax import compiled
    from convjax.train import average
    from convjax.train.evaluate import load_same_data
    from convjax.train.run import Run

    compiled.keep()
    source = Run(parsed.run)
    network, steps = average.average(source, parsed.last)
    out = console()
    out.print(f"average of the checkpoints of steps {', '.join(map(str, steps))}", soft_wrap=True)
    try:
        splits = load_same_data(network.config, network.info, source).splits
    except UsageError as error:
        if parsed.statistics == "recompute":
            raise UsageError(f"{error}\n--statistics average needs no data") from error
        out.print(f"not evaluated: {error}", soft_wrap=True)
        splits = {}
    if parsed.statistics == "recompute":
        network = average.recomputed(network, splits["train"], parsed.batches)
    average.as_weights(network, source, steps, parsed.statistics).write(parsed.output)
    for name in ("validation", "test"):
        if len(splits.get(name, ())):
            evaluation = network.evaluate(name, splits[name])
            out.print(f"{name} accuracy {100 * evaluation.accuracy:.2f} %, loss {evaluation.loss:.4f}")
    out.print(f"{parsed.output}: written", soft_wrap=True)
