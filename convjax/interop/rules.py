"""Rules from our modules' paths to the places of modules in PyTorch's networks."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from convjax.errors import UsageError
from convjax.interop.layout import Layout


class Place(NamedTuple):
    """Where a module of ours is there.

    Attributes:
        module: its name there.
        layout: how its weight is laid out there.
        pixels: of the flattened image, where the weight takes one.
        leaf: what its parameter is called there, if not weight or bias.
    """

    module: str
    layout: Layout = "usual"
    pixels: int = 1
    leaf: str | None = None


Rules: TypeAlias = Mapping[str, "str | Place | Callable[..., str | Place]"]
"""From a pattern for our module's path to its place there, or to a function of the numbers that the pattern found."""

UNIT = {"conv": 0, "norm": 1}
"""Where convolution and norm are in one of torchvision's `Conv2dNormActivation`."""


def place(rules: Rules, module: str) -> Place:
    """Returns the place of the module called `module` by the first rule whose pattern it matches.

    Raises:
        UsageError: there is no such rule.
    """
    for pattern, rule in rules.items():
        match = re.fullmatch(pattern, module)
        if match:
            found = rule(*(int(g) if g.isdigit() else g for g in match.groups())) if callable(rule) else rule
            return found if isinstance(found, Place) else Place(found)
    raise UsageError(f"PyTorch's network has no module for {module!r}: its weights cannot be carried")
