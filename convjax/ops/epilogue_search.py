"""What follows a convolution in a jaxpr, as far as it can be done to each of its numbers at once."""

import collections
import dataclasses
import enum
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var


class Step(enum.IntEnum):
    """What an epilogue does next: the numbers are those of convolution.h."""

    SUBTRACT = 0
    """A number of each channel, as the next two."""
    MULTIPLY = 1
    ADD = 2
    ADD_ARRAY = 3
    """One like the convolution's result: a shortcut."""
    RECTIFY = 4
    """Always the last, as the next two."""
    RECTIFY6 = 5
    """And cut off at 6."""
    TANH = 6


_AFFINE = {"sub": Step.SUBTRACT, "mul": Step.MULTIPLY, "add": Step.ADD}


@dataclasses.dataclass
class Epilogue:
    """Attributes:
    places: of the equations that are taken along, in order.
    steps: what they do.
    operands: what they do it with: a channel's numbers `[C]` or an array like the convolution's.
    """

    places: list[int] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)
    operands: list[Any] = dataclasses.field(default_factory=list)

    def copy(self) -> "Epilogue":
        return Epilogue([*self.places], [*self.steps], [*self.operands])


class Search:
    """Looks for what follows the convolutions of a flat jaxpr."""

    def __init__(self, jaxpr: Jaxpr) -> None:
        self._equations = jaxpr.eqns
        self._users: dict[Any, list[int]] = collections.defaultdict(list)
        self._made: dict[Any, JaxprEqn] = {}
        for place, equation in enumerate(jaxpr.eqns):
            for atom in equation.invars:
                if not isinstance(atom, Literal):
                    self._users[atom].append(place)
            self._made.update(dict.fromkeys(equation.outvars, equation))
        self._results = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}

    def epilogue(self, convolution: JaxprEqn, taken: set[int]) -> Epilogue | None:
        """Returns the longest epilogue of a convolution whose result is of the convolution's own dtype.

        What anything else asks for is not taken along: it would have to be computed twice.

        Args:
            convolution: the equation.
            taken: places of equations that belong to another's epilogue.
        """
        (value,) = convolution.outvars
        dtype, longest, now = _dtype(value), None, Epilogue()
        while value not in self._results and len(self._users[value]) == 1:
            (place,) = self._users[value]
            if place in taken or not self._takes(now, self._equations[place], value, dtype):
                break
            now.places.append(place)
            (value,) = self._equations[place].outvars
            if _dtype(value) == dtype and now.steps:
                longest = now.copy()
        return longest

    def _takes(self, now: Epilogue, equation: JaxprEqn, value: Var, dtype: Any) -> bool:
        """Says whether an equation may be the next of an epilogue, and writes down what it does to a value."""
        name = equation.primitive.name
        if Step.RECTIFY in now.steps:
            six = name == "min" and equation.invars[0] is value and self._constant(equation.invars[1]) == 6
            now.steps = [*now.steps[:-1], Step.RECTIFY6] if six else now.steps
            return six
        if now.steps and now.steps[-1] > Step.RECTIFY:
            return False
        if name == "convert_element_type":
            return _dtype(equation.outvars[0]) in (jnp.float32, dtype)
        if name == "tanh":
            return _dtype(value) == dtype and _add(now, Step.TANH)
        if name not in ("max", *_AFFINE):
            return False
        first, second = equation.invars
        if first is not value and name in ("sub", "max"):
            return False
        other = first if second is value else second
        if name == "max":
            return self._constant(other) == 0 and _dtype(value) == dtype and _add(now, Step.RECTIFY)
        if Step.ADD_ARRAY in now.steps:
            return False
        channels = self._channels(other, _shape(value))
        if channels is not None and (_dtype(value) == jnp.float32 or name == "add"):
            return _add(now, _AFFINE[name], channels)
        like = not isinstance(other, Literal) and other is not value and _shape(other) == _shape(value)
        return name == "add" and like and _dtype(value) == dtype and _add(now, Step.ADD_ARRAY, other)

    def _channels(self, atom: Any, shape: tuple[int, ...]) -> Var | None:
        """Returns the `[C]` that an array repeats for each pixel; None if it repeats none."""
        while not isinstance(atom, Literal) and _shape(atom) != shape[-1:]:
            made = self._made.get(atom)
            if made is None or made.primitive.name not in ("broadcast_in_dim", "reshape"):
                return None
            last = len(_shape(atom)) - 1
            kept = made.params.get("broadcast_dimensions", (last,))
            (atom,) = made.invars
            if kept[-1:] != (last,) or _shape(atom)[-1:] != shape[-1:]:
                return None
        return None if isinstance(atom, Literal) else atom

    def _constant(self, atom: Any) -> float | None:
        """Returns the number that an array is filled with; None if it is not constant."""
        if isinstance(atom, Literal):
            return float(atom.val)
        made = self._made.get(atom)
        return self._constant(made.invars[0]) if made and made.primitive.name == "broadcast_in_dim" else None


def _add(now: Epilogue, step: Step, *operands: Any) -> bool:
    now.steps.append(step)
    now.operands.extend(operands)
    return True


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


def _dtype(atom: Any) -> Any:
    return atom.aval.dtype
