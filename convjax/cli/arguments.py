"""Arguments that several commands share."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from convjax.errors import UsageError, require

if TYPE_CHECKING:
    from convjax.train.checkpoint import Which


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A run and one of its checkpoints."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    checkpoint: str = "best"
    """best (by validation accuracy), latest, or a step."""

    def which(self) -> "Which":
        """Returns the checkpoint as `convjax.train.checkpoint.Which`.

        Raises:
            UsageError: it is neither best, latest, nor a step.
        """
        return which_checkpoint(self.checkpoint)


def require_at_least(arguments: object, **least: int) -> None:
    """Makes sure that arguments are not below some numbers; None is no number.

    Raises:
        UsageError: one is; its flag is named.
    """
    for name, number in least.items():
        value = getattr(arguments, name)
        require(value is None or value >= number, f"--{name}", value, f"at least {number}")


def which_checkpoint(checkpoint: str) -> "Which":
    """Returns the value of --checkpoint as `convjax.train.checkpoint.Which`.

    Raises:
        UsageError: it is neither best, latest, nor a step.
    """
    if checkpoint == "best":
        return "best"
    if checkpoint == "latest":
        return "latest"
    if checkpoint.isdecimal():
        return int(checkpoint)
    raise UsageError(f"--checkpoint is {checkpoint!r}: it must be best, latest, or a step such as 430")
