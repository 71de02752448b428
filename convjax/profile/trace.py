"""Whose time it was: the profiler's trace of a program, by the program's instructions."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from convjax.errors import RunError

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = .*?\s([\w\-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_SCOPE = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_ACCELERATOR = re.compile(r"/device:[GT]PU:\d+")
_FLOW = ("while", "call", "conditional")
"""Instructions that run others, which are events of their own."""
_END = "end: "
"""Before the name of an instruction, where one ends that was started and not waited for."""


class Instruction(NamedTuple):
    """A line of XLA's text.

    Attributes:
        computation: where it stands.
        name: its own.
        kind: what it does.
        called: the computation that it calls; empty where it calls none.
        text: all of it.
    """

    computation: str
    name: str
    kind: str
    called: str
    text: str


def instructions(program: str) -> Iterator[Instruction]:
    """Yields the instructions of a compiled program, from XLA's text."""
    computation = ""
    for line in program.splitlines():
        if head := _COMPUTATION.match(line):
            computation = head[1]
        if found := _INSTRUCTION.match(line):
            called = _CALLED.search(line)
            yield Instruction(computation, found[1], found[2], called[1] if called else "", line)


def scopes(program: str) -> dict[str, str]:
    """Returns the scope of each instruction of a compiled program, by name; empty where none is known.

    A fusion without a scope has that of the first instruction inside of it that has one.

    Args:
        program: XLA's text, as `jax.stages.Compiled.as_text` gives it.
    """
    found: dict[str, str] = {}
    without: dict[str, str] = {}
    first: dict[str, str] = {}
    for instruction in instructions(program):
        if instruction.kind in _FLOW:
            continue
        scope = _SCOPE.search(instruction.text)
        found[instruction.name] = scope[1] if scope else ""
        if scope:
            first.setdefault(instruction.computation, scope[1])
        elif instruction.called:
            without[instruction.name] = instruction.called
    return found | {name: first.get(called, "") for name, called in without.items()}


@contextlib.contextmanager
def looking_on(directory: Path, *, perfetto: bool = False) -> Iterator[None]:
    """Has the profiler write a trace of what happens meanwhile, on request one for Perfetto as well."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.profiler.start_trace(directory, create_perfetto_trace=perfetto, profiler_options=options)
    try:
        yield
    finally:
        jax.profiler.stop_trace()


def read(directory: Path) -> "jax.profiler.ProfileData":
    """Reads the trace that the profiler has written into a directory.

    Raises:
        RunError: there is none.
    """
    files = sorted(directory.rglob("*.xplane.pb"))
    if not files:
        raise RunError(f"{directory}: the profiler has written no trace")
    return jax.profiler.ProfileData.from_file(str(files[-1]))


def busy(trace: "jax.profiler.ProfileData", instructions: set[str]) -> dict[str, float]:
    """Returns the seconds of each instruction, so that they sum to the time in which any of them ran.

    Where several run at once each has an equal share of that time. Of several accelerators the first is looked at:
    all do the same.
    """
    edges: list[tuple[float, int, str]] = []
    for start, end, name in _spans(trace, instructions):
        if end > start:
            edges += [(start, 1, name), (end, -1, name)]
    running: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    before = 0.0
    for moment, change, name in sorted(edges):
        count = sum(running.values())
        for other, times in running.items():
            seconds[other] += (moment - before) * times / count / 1e9
        before = moment
        running[name] += change
        if not running[name]:
            del running[name]
    return dict(seconds)


def _spans(trace: "jax.profiler.ProfileData", instructions: set[str]) -> list[tuple[float, float, str]]:
    """Returns when instructions began and ended, in nanoseconds."""
    planes = list(trace.planes)
    devices = sorted(plane.name for plane in planes if _ACCELERATOR.match(plane.name))
    wanted = devices[0] if devices else "/host:CPU"
    spans: list[tuple[float, float, str]] = []
    started: dict[Any, int] = {}
    ended: dict[Any, float] = {}
    for plane in planes:
        for line in plane.lines if plane.name == wanted else ():
            for event in line.events:
                stats = dict(event.stats)
                if event.name.startswith(_END):
                    ended[stats.get("_c")] = event.start_ns
                elif (name := stats.get("hlo_op")) in instructions:
                    started[stats.get("_p", object())] = len(spans)
                    spans.append((event.start_ns, event.start_ns + event.duration_ns, str(name)))
    for flow, index in started.items():
        start, end, name = spans[index]
        spans[index] = (start, max(end, ended.get(flow, end)), name)
    return spans
