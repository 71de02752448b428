"""What each layer has to compute and to move in one training step, read off the jaxpr.

The bytes are those that must be moved whatever the compiler does: within a layer and a direction everything may stay
in registers, but what it takes from elsewhere (activations, parameters, what was kept for the gradient) is read once,
and what others take of it is written once.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from jax.extend.core import Jaxpr, JaxprEqn
from jax.extend.core import Literal as Constant

from convjax.inspect import count, summary

Direction: TypeAlias = Literal["forward", "backward"]

_SCOPES = re.compile(r"(?:^|[/(])(augment|normalise|optimizer)(?=$|[/)])")
_VIEWS = {"reshape", "squeeze", "expand_dims", "name", "copy", "copy_p", "optimization_barrier"}
"""Operations that return what they take."""


class Part(NamedTuple):
    """Of what an operation is a part.

    Attributes:
        layer: path of a module, empty for the model itself; None outside of it.
        name: outside of the model what it belongs to: augment, normalise, optimizer, or rest; else empty.
        direction: forward, or backward for gradients and for what is computed again for them.
    """

    layer: str | None
    name: str
    direction: Direction


def part(scope: str) -> Part:
    """Returns of what an operation is a part, by the scope that JAX writes into jaxprs and XLA into programs."""
    layer = summary.owner(scope)
    direction: Direction = "backward" if "transpose(" in scope or "rematted_computation" in scope else "forward"
    if layer is not None:
        return Part(layer, "", direction)
    found = _SCOPES.findall(scope)
    return Part(None, found[0] if found else "rest", "forward")


@dataclasses.dataclass
class Work:
    """Attributes:
    multiply_accumulates: of convolutions and matrix products.
    bytes: that must be moved at least.
    """

    multiply_accumulates: int = 0
    bytes: int = 0


def works(jaxpr: Jaxpr) -> dict[Part, Work]:
    """Returns what each part of a jaxpr, traced with `summary.naming`, has to do."""
    found = _Found()
    found.follow(jaxpr, [_Value(None) for _ in (*jaxpr.constvars, *jaxpr.invars)], 1, "")
    for value in found.last:
        found.written(value)
    return found.works


class _Value:
    """An array: which part has made it, None for what comes from outside, and who has had it moved."""

    def __init__(self, maker: Part | None, size: int = 0) -> None:
        self.maker, self.size = maker, size
        self.readers: set[Part] = set()
        self.is_written = False


class _Found:
    def __init__(self) -> None:
        self.works: dict[Part, Work] = defaultdict(Work)
        self.last: list[_Value] = []

    def follow(self, jaxpr: Jaxpr, given: Sequence[_Value], times: int, outer: str) -> None:
        """Goes through a jaxpr whose constants and arguments are `given`; `last` are then the values it returns."""
        known: dict[Any, _Value] = dict(zip((*jaxpr.constvars, *jaxpr.invars), given, strict=True))
        for equation in jaxpr.eqns:
            scope = f"{outer}/{equation.source_info.name_stack}"
            taken = [_Value(None) if isinstance(v, Constant) else known[v] for v in equation.invars]
            called = list(count.called(equation))
            if called:
                returned = self._call(equation, called, taken, times, scope)
            elif equation.primitive.name in _VIEWS:
                returned = taken[: len(equation.outvars)]
            else:
                returned = self._compute(equation, taken, times, part(scope))
            known.update(zip(equation.outvars, returned, strict=True))
        self.last = [_Value(None) if isinstance(v, Constant) else known[v] for v in jaxpr.outvars]

    def _call(
        self, equation: JaxprEqn, called: list[Jaxpr], taken: list[_Value], times: int, scope: str
    ) -> list[_Value]:
        """Follows a call. Of loops and branches what goes in and out is taken to be moved."""
        if len(called) == 1 and equation.primitive.name != "scan" and len(called[0].invars) == len(taken):
            self.follow(called[0], [_Value(None) for _ in called[0].constvars] + taken, times, scope)
            if len(self.last) == len(equation.outvars):
                return self.last
        else:
            for value in taken:
                self.written(value)
            for jaxpr in called:
                inside = [_Value(None) for _ in (*jaxpr.constvars, *jaxpr.invars)]
                self.follow(jaxpr, inside, times * count.repeats(equation), scope)
                for value in self.last:
                    self.written(value)
        return [_Value(None) for _ in equation.outvars]

    def _compute(self, equation: JaxprEqn, taken: list[_Value], times: int, owner: Part) -> list[_Value]:
        self.works[owner].multiply_accumulates += times * count.products(equation)
        for variable, value in zip(equation.invars, taken, strict=True):
            if not isinstance(variable, Constant) and value.maker != owner and owner not in value.readers:
                value.readers.add(owner)
                self.works[owner].bytes += times * _size(variable)
                self.written(value)
        return [_Value(owner, times * _size(variable)) for variable in equation.outvars]

    def written(self, value: _Value) -> None:
        """Counts that a value leaves the part that has made it, once."""
        if value.maker is not None and not value.is_written:
            value.is_written = True
            self.works[value.maker].bytes += value.size


def _size(variable: Any) -> int:
    """Returns the bytes of an array; a key of JAX's random numbers has some, too."""
    aval = variable.aval
    return int(getattr(aval, "size", 0)) * int(getattr(getattr(aval, "dtype", None), "itemsize", 0))
