"""What a side of the comparison hands over."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, TextIO


def answers() -> TextIO:
    """Returns standard output for answers alone: what libraries print goes to the errors from here on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A network that is ready for its first step.

    Attributes:
        step: starts one step and returns what it will have computed.
        wait: takes that, and returns the step's loss, or a logit, when everything is computed.
        parameters: numbers that are learned.
        peak: bytes of the device's own memory that were in use at the most; None where that is the process's.
    """

    step: Callable[[], Any]
    wait: Callable[[Any], float]
    parameters: int
    peak: Callable[[], int] | None = None
