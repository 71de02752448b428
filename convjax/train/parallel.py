"""One step on one device, many devices, or the devices of many processes.

The batch is divided along its first axis, the state is the same everywhere. In mode `jit` the compiler is told
so by named shardings and finds the communication itself; `shard_map` and `pmap` run the step on each device's
part, with the averages over devices written out in `convjax.train.step`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from convjax.data.loader import Feed
from convjax.errors import UsageError
from convjax.train.config import Config, ParallelConfig
from convjax.train.state import TrainState
from convjax.train.step import Step

AXIS = "data"

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a run's arrays lie.

    Attributes:
        config: what was asked for.
        mesh: the devices, along the axis `data`.
    """

    config: ParallelConfig
    mesh: Mesh

    @classmethod
    def of(cls, config: Config) -> "Placement":
        """Returns the placement that a configuration asks for.

        Raises:
            UsageError: there are not so many devices, or the batch cannot be divided among them.
        """
        asked, processes = config.parallel, jax.process_count()
        count = asked.devices or jax.device_count()
        if count > jax.device_count():
            raise UsageError(f"parallel.devices is {count}: there are {jax.device_count()}")
        if count % processes:
            raise UsageError(f"parallel.devices is {count}: {processes} processes must have the same number each")
        if asked.mode == "pmap" and processes > 1:
            raise UsageError("parallel.mode is pmap: with several processes it must be jit or shard_map")
        pairs = 2 if config.data.augment.mix.on else 1
        parts = count * config.train.accumulate * pairs
        if config.train.batch_size % parts:
            raise UsageError(
                f"train.batch_size is {config.train.batch_size}: it must be a multiple of {parts}, "
                f"{count} devices times {config.train.accumulate} micro-batches"
                f"{' of pairs of images to mix' if pairs > 1 else ''} (see parallel.devices)"
            )
        own = [[d for d in jax.devices() if d.process_index == process] for process in range(processes)]
        devices = [device for part in own for device in part[: count // processes]]
        return cls(asked, Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,)))

    @classmethod
    def single(cls) -> "Placement":
        """Returns the placement on one device."""
        return cls(ParallelConfig(), Mesh(np.array(jax.local_devices()[:1]), (AXIS,), axis_types=(AxisType.Auto,)))

    @property
    def groups(self) -> int:
        """Parts of a batch that batch norms normalise apart, within one call of the step."""
        local = self.config.mode == "jit" and self.config.batch_stats == "local"
        return self.devices if local else 1

    @property
    def devices(self) -> int:
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def divided(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def replicate(self, array: NDArray[Any]) -> jax.Array:
        """Puts an array whole on each device; each process must hand in the same."""
        return jax.make_array_from_process_local_data(self.replicated, array, array.shape)

    def rows(self, examples: int) -> slice:
        """Returns which rows of a batch this process hands in."""
        part = examples // jax.process_count()
        return slice(part * jax.process_index(), part * (jax.process_index() + 1))

    def divide(self, rows: NDArray[Any]) -> jax.Array:
        """Divides a batch among all devices, of which this process hands in its own rows."""
        return jax.make_array_from_process_local_data(self.divided, rows)

    def collect(self, arrays: Any) -> Any:
        """Returns divided arrays whole, as NumPy arrays, to every process."""
        if jax.process_count() == 1:
            return jax.device_get(arrays)
        return multihost_utils.process_allgather(arrays, tiled=True)

    def shardings(self, state: TrainState) -> TrainState:
        """Returns the sharding of each array of a state, in a tree like it."""
        whole = jax.tree.map(lambda _: self.replicated, state)
        if not self.config.shard_optimizer:
            return whole

        def part(leaf: Any) -> NamedSharding:
            """Divides the largest axis that can be divided."""
            axes = [axis for axis, size in enumerate(leaf.shape) if size % self.devices == 0]
            if not axes:
                return self.replicated
            axis = max(axes, key=lambda axis: leaf.shape[axis])
            return NamedSharding(self.mesh, PartitionSpec(*([None] * axis), AXIS))

        return whole.replace(opt_state=jax.tree.map(part, state.opt_state))

    def shapes(self, state: TrainState) -> TrainState:
        """Returns shape, type and sharding of each array of a state: what a checkpoint is restored to."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            self.shardings(state),
        )

    def initial(self, make: Callable[..., TrainState], *given: Any) -> TrainState:
        """Returns the state that a function makes of arrays, if it is given some, computed where it is to lie."""
        made = jax.jit(make, out_shardings=self.shardings(jax.eval_shape(make, *given)))
        return made(*jax.tree.map(self.replicate, given))


class Advance:
    """The training step, compiled, as a function of state and what `Feed.batches` yields; the state is donated.

    Whoever wants the bits of a run takes its steps by this function, and by no other: XLA may round another
    program otherwise.
    """

    def __init__(
        self, placement: Placement, step: Step, feed: Feed, shapes: TrainState, options: dict[str, str] | None = None
    ) -> None:
        """Prepares to compile.

        Args:
            placement: where arrays lie.
            step: the step.
            feed: where batches come from.
            shapes: the state's arrays, or their shapes.
            options: for XLA's compiler; not in mode `pmap`, which knows none.
        """
        self._placement, self._held = placement, feed.held
        axis_name = None if placement.config.mode == "jit" else AXIS
        # Given to the program rather than compiled into it: runs of other seeds find it compiled.
        self._seed = placement.replicate(np.array(step.seed, np.uint32))

        def advance(state: TrainState, seed: jax.Array, held: Any, given: Any) -> tuple[TrainState, Metrics]:
            return dataclasses.replace(step, seed=seed).train(state, feed.read(held, given), axis_name=axis_name)

        mesh, whole, rows = placement.mesh, PartitionSpec(), PartitionSpec(AXIS)
        self._call: Callable[..., Any]
        if placement.config.mode == "jit":
            out = (placement.shardings(shapes), placement.replicated)
            self._call = jax.jit(advance, donate_argnums=0, out_shardings=out, compiler_options=options)
        elif placement.config.mode == "shard_map":
            mapped = jax.shard_map(
                advance, mesh=mesh, in_specs=(whole, whole, whole, rows), out_specs=(whole, whole), check_vma=False
            )
            self._call = jax.jit(mapped, donate_argnums=0, compiler_options=options)
        else:
            devices = list(mesh.devices.flat)
            self._call = jax.pmap(advance, AXIS, in_axes=(0, None, None, 0), devices=devices, donate_argnums=0)

    def __call__(self, state: TrainState, given: Any) -> tuple[TrainState, Metrics]:
        """Returns the next state and the step's metrics; see `Step.train`."""
        if self._placement.config.mode == "pmap":
            state, metrics = self._call(state, self._seed, self._held, self._stacked(given))
            return state, jax.tree.map(lambda x: x[0], metrics)
        # The mesh is told to operations that the compiler would not divide well by itself.
        with jax.set_mesh(self._placement.mesh):
            return cast(tuple[TrainState, Metrics], self._call(state, self._seed, self._held, given))

    @staticmethod
    def read(metrics: Metrics) -> dict[str, float]:
        """Returns a step's metrics, once they are computed."""
        return {name: float(value) for name, value in jax.device_get(metrics).items()}

    def lower(self, state: Any, given: Any) -> Any:
        """Returns the step, lowered for shapes that need not exist as arrays; see `jax.stages.Lowered`."""
        with jax.set_mesh(self._placement.mesh):
            return self._call.lower(state, self._seed, self._held, given)  # type: ignore[attr-defined]

    def enter(self, state: TrainState) -> TrainState:
        """Returns a state as this mode's steps take it: pmap wants one for each device, stacked."""
        if self._placement.config.mode != "pmap":
            return state
        stack = jax.jit(
            lambda state: jax.tree.map(lambda x: jnp.broadcast_to(x, (self._placement.devices, *x.shape)), state),
            out_shardings=self._placement.divided,
        )
        return cast(TrainState, stack(state))

    def leave(self, state: TrainState) -> TrainState:
        """Returns the state of a step as everybody else takes it."""
        if self._placement.config.mode != "pmap":
            return state
        first = jax.jit(lambda state: jax.tree.map(lambda x: x[0], state), out_shardings=self._placement.replicated)
        return cast(TrainState, first(state))

    def _stacked(self, given: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(self._placement.devices, -1, *x.shape[1:]), given)
