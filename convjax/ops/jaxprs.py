"""Jaxprs inside of jaxprs."""

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

_INLINED = {
    "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
    "jit", "pjit", "remat", "remat2",
}  # fmt: skip


def evaluated(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Returns the jaxpr that an equation does nothing but evaluate on its own operands; None if it does more."""
    if equation.primitive.name not in _INLINED:
        return None
    found = next(value for value in equation.params.values() if isinstance(value, ClosedJaxpr | Jaxpr))
    return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())
