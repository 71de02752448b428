"""What a side of the comparison hands over."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A network that is ready for its first step.

    Attributes:
        step: does one step and returns its loss, or a logit, when everything is computed.
        parameters: numbers that are learned.
        work: floating-point operations of one step, where the side counts them.
    """

    step: Callable[[], float]
    parameters: int
