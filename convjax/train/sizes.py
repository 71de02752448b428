"""Progressive resizing: smaller images first."""

import bisect
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sides in pixels to which images are brought, one after the other (Touvron et al. 2019, arXiv:1906.06423).

    All sizes are part of one compiled step, which looks at the count of steps: a run may stop and go on anywhere.

    Attributes:
        sides: in pixels; empty leaves images as they are.
        starts: steps at which the second and the following begin.
    """

    sides: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    def at(self, step: int) -> int | None:
        """Returns the side at a step, counted from 0; None if images stay as they are."""
        return self.sides[bisect.bisect_right(self.starts, step)] if self.sides else None

    def switch(self, function: Callable[..., Any], step: jax.Array, *arrays: Any) -> Any:
        """Returns `function(side, *arrays)` for the side at a step."""
        if not self.starts:
            return function(self.at(0), *arrays)
        index = jnp.searchsorted(jnp.array(self.starts), step, side="right")
        return jax.lax.switch(index, [partial(function, side) for side in self.sides], *arrays)
