"""Taking some steps of an experiment, and finding out where their time goes."""

import dataclasses
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax.data.loader import Batch
from convjax.errors import RunError
from convjax.inspect import summary
from convjax.ops import cpu
from convjax.profile import machine, trace, work
from convjax.profile.machine import Machine
from convjax.profile.steps import Started, start, timed
from convjax.profile.subject import Subject
from convjax.profile.work import Part, Work
from convjax.train.parallel import Advance
from convjax.train.plan import draws
from convjax.train.step import Step
from convjax.train.waits import INPUT_BOUND

_UNTIMED, _TRACED = 2, 5
"""Steps that are taken first, since one compiles, and one follows the emptying of the loader's buffer; and those that
are traced."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """What XLA has planned for a step, in bytes.

    Attributes:
        arguments: the state, the data that lie on the device, and the batch.
        outputs: the next state and the metrics.
        shared: of these what takes the place of an argument.
        temporary: activations kept for the gradients, and what else lives within a step only.
        program: the program itself.
    """

    arguments: int
    outputs: int
    shared: int
    temporary: int
    program: int

    @property
    def needed(self) -> int:
        """All of it."""
        return self.arguments + self.outputs - self.shared + self.temporary + self.program


@dataclasses.dataclass(frozen=True)
class Look:
    """What was found; times are seconds of one step.

    Attributes:
        kernels: what computes convolutions on a CPU; None elsewhere.
        devices: how many the batch is divided among.
        machine: what they reach at best.
        step: median time of a step.
        waited: mean time that the loop waits for a batch before a step; None without a data set.
        traced: mean time of a step while the profiler looked on; on a GPU of a program that launches operations one by
            one.
        kinds: class of each module that the step calls, by path.
        works: what each part has to do.
        times: how long each part ran; they sum to `traced`, but for `idle`.
        memory: None where XLA does not tell.
    """

    kernels: cpu.Kernels | None
    devices: int
    machine: Machine
    step: float
    waited: float | None
    traced: float
    kinds: dict[str, str]
    works: dict[Part, Work]
    times: dict[Part, float]
    memory: Memory | None

    @property
    def idle(self) -> float:
        """Time of a step in which no operation ran."""
        return max(0.0, self.traced - sum(self.times.values()))

    @property
    def multiply_accumulates(self) -> int:
        return sum(work.multiply_accumulates for work in self.works.values())

    @property
    def share_of_peak(self) -> float:
        """Share that a step reaches of the operations a second of a matrix product."""
        return self.machine.arithmetic(self.multiply_accumulates) / self.step

    @property
    def waiting(self) -> float | None:
        """Share of the loop's time that it waits for data."""
        return None if self.waited is None else self.waited / (self.waited + self.step)

    @property
    def verdict(self) -> str | None:
        """What bounds the loop: input-bound or compute-bound; None without a data set."""
        if self.waiting is None:
            return None
        return "input-bound" if self.waiting >= INPUT_BOUND else "compute-bound"


def look(subject: Subject, steps: int, directory: Path | None, say: Callable[[str], None]) -> Look:
    """Compiles the training step, takes some, and looks on.

    Args:
        subject: what to profile.
        steps: steps that are timed; some more are traced.
        directory: where to leave the trace for TensorBoard and Perfetto; None leaves none.
        say: told what is going on.

    Raises:
        UsageError: the configuration does not fit the data, or this machine.
        RunError: the trace has nothing of the step in it.
    """
    config, data = subject.config, subject.data
    run = start(config, data)
    kinds: dict[str, str] = {}
    say("compiling the step")
    with cpu.switched_on(), nn.intercept_methods(summary.naming(kinds)):
        kernels = cpu.active() if jax.default_backend() == "cpu" else None
        works = _works(run.step, run.shapes, config.train.batch_size, data.info.image)
        compiled = _compiled(run)
        apart = _told_apart(run)
        watched = compiled if apart is run else _compiled(apart)
    say("taking steps")
    times, state = list[tuple[float, float]](), run.state
    for one in timed(run, _UNTIMED + steps):
        times.append((one.waited, one.stepped))
        state = one.state
    times = times[_UNTIMED:]
    followed = min(steps, _TRACED)
    more = timed(apart._replace(state=state), _UNTIMED + followed)
    for _ in range(_UNTIMED):
        next(more)
    with tempfile.TemporaryDirectory() as temporary:
        kept = directory or Path(temporary)
        with trace.looking_on(kept, perfetto=directory is not None):
            traced = [one.stepped for one in more]
        parts = _parts(trace.read(kept), trace.scopes(watched.as_text() or ""), followed)
    say("measuring the machine")
    # Devices that a CPU is divided into share what it has.
    devices = run.placement.devices if kernels is None else 1
    return Look(
        kernels=kernels,
        devices=run.placement.devices,
        machine=machine.measure(str(getattr(config.model, "dtype", "float32")), devices),
        step=statistics.median(stepped for _, stepped in times),
        waited=None if subject.is_noise else statistics.mean(waited for waited, _ in times),
        traced=statistics.mean(traced),
        kinds=kinds,
        works=works,
        times=parts,
        memory=_memory(compiled),
    )


def _compiled(run: Started) -> jax.stages.Compiled:
    """Compiles a run's step as its own first step will have it."""
    drawn = draws(run.config, len(run.feed))
    return run.advance.lower(run.state, next(run.feed.batches(drawn.ids, 0, 1, drawn.epochs))).compile()


def _told_apart(run: Started) -> Started:
    """Returns a run whose operations the profiler can tell apart.

    By default XLA has a GPU launch many of them at once, as a CUDA graph, and the trace does not say which they were:
    github.com/openxla/xprof/issues/3070.
    """
    if jax.default_backend() != "gpu":
        return run
    one_by_one = {"xla_gpu_enable_command_buffer": ""}
    return run._replace(advance=Advance(run.placement, run.step, run.feed, run.shapes, one_by_one))


def _works(step: Step, shapes: Any, count: int, image: tuple[int, int, int]) -> dict[Part, Work]:
    """Returns the work of one step on a whole batch, by part."""
    numbers = jax.ShapeDtypeStruct((count,), jnp.int32)
    batch = Batch(jax.ShapeDtypeStruct((count, *image), jnp.uint8), *3 * [numbers])  # type: ignore[arg-type]
    return work.works(jax.make_jaxpr(step.train)(shapes, batch).jaxpr)


def _parts(found: jax.profiler.ProfileData, scopes: dict[str, str], steps: int) -> dict[Part, float]:
    """Returns how long each part ran in one of the steps of a trace."""
    parts: dict[Part, float] = defaultdict(float)
    for instruction, seconds in trace.busy(found, set(scopes)).items():
        parts[work.part(scopes[instruction])] += seconds / steps
    if not parts:
        raise RunError("the profiler's trace has none of the step's operations in it")
    return dict(parts)


def _memory(compiled: jax.stages.Compiled) -> Memory | None:
    found = compiled.memory_analysis()
    if found is None:
        return None
    return Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        shared=found.alias_size_in_bytes,
        temporary=found.temp_size_in_bytes,
        program=found.generated_code_size_in_bytes,
    )
