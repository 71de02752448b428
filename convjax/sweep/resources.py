"""A machine's cores and accelerators, divided among processes that run at once."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from convjax.errors import UsageError

T = TypeVar("T")

_GPUS, _CHIPS = "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS"


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process gets.

    Attributes:
        cores: processor cores; empty where the system cannot bind a process to some.
        environment: variables that name its accelerators.
    """

    cores: tuple[int, ...]
    environment: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Machine:
    """What there is to be divided.

    Attributes:
        cores: those that this process may use; empty where the system does not tell.
        variable: the variable that names the accelerators a process may use.
        accelerators: their names for it.
    """

    cores: tuple[int, ...]
    variable: str
    accelerators: tuple[str, ...]

    @classmethod
    def here(cls, system: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> "Machine":
        """Returns this machine, without starting JAX, which would take the accelerators for itself.

        Args:
            system: the root of the file system.
            environment: this process's variables.
        """
        cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
        gpus = sorted(path.name for path in (system / "proc/driver/nvidia/gpus").glob("*"))
        chips = sorted((system / "dev").glob("accel[0-9]*"))
        if environment.get("JAX_PLATFORMS") == "cpu":
            return cls(cores, _GPUS, ())
        for variable, count in ((_GPUS, len(gpus)), (_CHIPS, len(chips))):
            if count and variable in environment:
                return cls(cores, variable, tuple(name for name in environment[variable].split(",") if name))
            if count:
                return cls(cores, variable, tuple(map(str, range(count))))
        return cls(cores, _GPUS, ())

    def divide(self, jobs: int) -> tuple[Share, ...]:
        """Returns the shares of so many processes, as equal as can be.

        Where there are more processes than cores or GPUs, several have the same; each then takes its part of the
        GPU's memory.

        Raises:
            UsageError: there are fewer TPU chips, which processes cannot share.
        """
        return tuple(Share(_part(self.cores, jobs, number), self._environment(jobs, number)) for number in range(jobs))

    def _environment(self, jobs: int, number: int) -> dict[str, str]:
        if not self.accelerators:
            return {}
        own = _part(self.accelerators, jobs, number)
        environment = {self.variable: ",".join(own)}
        if self.variable == _CHIPS:
            if jobs > len(self.accelerators):
                raise UsageError(
                    f"--jobs is {jobs}: it must be at most {len(self.accelerators)}, the chips of this TPU"
                )
            if jobs > 1:
                one = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
                return {self.variable: own[0], **one}  # more than one chip a process must also be neighbours
            return environment
        sharing = -(-jobs // len(self.accelerators))
        if sharing > 1:
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / sharing:.3f}"
        return environment


def _part(things: Sequence[T], jobs: int, number: int) -> tuple[T, ...]:
    """Returns the part of the `number`-th of `jobs` processes: neighbours, each in one part if there are enough."""
    count = len(things)
    if not count or jobs > count:
        return (things[number % count],) if count else ()
    return tuple(things[number * count // jobs : (number + 1) * count // jobs])
