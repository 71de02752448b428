"""What was found, layer by layer, as tables and JSON have it."""

import dataclasses
from typing import Literal, TypeAlias

from convjax.profile.look import Look
from convjax.profile.machine import Machine
from convjax.profile.work import Part, Work

Bound: TypeAlias = Literal["memory", "arithmetic"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a layer in one direction or both.

    Attributes:
        multiply_accumulates: that it has to do.
        bytes: that it has to move at least.
        seconds: that it takes.
        least: that it would take on this machine if nothing but its arithmetic or its memory, whichever takes longer,
            held it up: the roofline of Williams et al. 2009, doi:10.1145/1498765.1498785, operation by operation.
        by_memory: seconds of these that memory holds up.
    """

    multiply_accumulates: int = 0
    bytes: int = 0
    seconds: float = 0.0
    least: float = 0.0
    by_memory: float = 0.0

    @classmethod
    def of(cls, work: Work, seconds: float, machine: Machine) -> "Cost":
        arithmetic, memory = machine.arithmetic(work.multiply_accumulates), machine.memory(work.bytes)
        least = max(arithmetic, memory)
        by_memory = memory if memory > arithmetic else 0.0
        return cls(work.multiply_accumulates, work.bytes, seconds, least, by_memory)

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(a + b for a, b in pairs))

    @property
    def bound(self) -> Bound | None:
        """By what it is bound, for the most part; None where it has nothing to do."""
        if not self.least:
            return None
        return "memory" if self.by_memory > self.least / 2 else "arithmetic"


@dataclasses.dataclass(frozen=True)
class Row:
    """Attributes:
    layer: path of a module with all inside of it; empty for what the model itself computes; None outside of it.
    name: outside of the model what it is; see `convjax.profile.work.Part`.
    kind: class of the module.
    forward: of the way to the loss.
    backward: of the way back; nothing outside of the model.
    """

    layer: str | None
    name: str
    kind: str
    forward: Cost
    backward: Cost

    @property
    def both(self) -> Cost:
        return self.forward + self.backward


def rows(found: Look, depth: int) -> list[Row]:
    """Returns a row for each module down to a depth, in the order of the first calls, then what is no module."""
    costs: dict[tuple[str | None, str], dict[str, Cost]] = {}
    order = {path: index for index, path in enumerate(found.kinds)}

    def place(part: Part) -> tuple[bool, int, str]:
        return part.layer is None, order.get(part.layer or "", len(order)), part.name

    for part in sorted({*found.works, *found.times}, key=place):
        above = None if part.layer is None else "/".join(part.layer.split("/")[:depth])
        cost = Cost.of(found.works.get(part, Work()), found.times.get(part, 0.0), found.machine)
        directions = costs.setdefault((above, part.name), {"forward": Cost(), "backward": Cost()})
        directions[part.direction] += cost
    return [
        Row(layer, name, found.kinds.get(layer or "", "") if layer is not None else "", **both)
        for (layer, name), both in costs.items()
    ]
