"""Dynamic loss scaling, without which the gradients of a float16 network vanish."""

import flax.struct
import jax
import jax.numpy as jnp

LEAST, LARGEST = 2.0**-14, 2.0**24
"""Below 1 for networks whose own gradients overflow, as deep ones without shortcuts; not below float16's least normal
number, which the gradient of a logit, below 1, would vanish under."""
GROW_AFTER = 2000


class LossScale(flax.struct.PyTreeNode):
    """What the loss is multiplied by before it is differentiated (Micikevicius et al. 2017, arXiv:1710.03740).

    Halved when a gradient overflows, doubled after 2,000 steps without one, between 2**-14 and 2**24.

    Attributes:
        scale: float32 scalar.
        steady: int32 scalar, steps since the scale last changed.
        overflows: int32 scalar, steps whose update was left out because a scaled gradient was not finite.
    """

    scale: jax.Array
    steady: jax.Array
    overflows: jax.Array

    @classmethod
    def create(cls, scale: float = 2.0**15) -> "LossScale":
        """Returns the scale before the first step."""
        return cls(jnp.float32(scale), jnp.int32(0), jnp.int32(0))

    def excuses(self, loss: jax.Array) -> jax.Array:
        """Says whether gradients that are not finite may be due to the scale alone."""
        return jnp.isfinite(loss) & (self.scale > LEAST)

    def adjust(self, finite: jax.Array, excused: jax.Array) -> "LossScale":
        """Returns the scale after a step whose gradients were finite or not, and then were excused or not."""
        grows = finite & (self.steady + 1 >= GROW_AFTER)
        changed = jnp.where(grows, jnp.minimum(self.scale * 2, LARGEST), self.scale)
        return LossScale(
            scale=jnp.where(finite, changed, jnp.maximum(self.scale / 2, LEAST)),
            steady=jnp.where(finite & ~grows, self.steady + 1, 0),
            overflows=self.overflows + (~finite & excused),
        )
