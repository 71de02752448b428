"""Whether all configurations of a sweep can run, found out before the first one does."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from convjax.data.splits import DataInfo
from convjax.errors import UsageError, about
from convjax.sweep.trials import Trial
from convjax.train import resume, transfer
from convjax.train.evaluate import build, load_data
from convjax.train.parallel import Placement
from convjax.train.plan import Plan
from convjax.train.schedule import schedule


@dataclasses.dataclass
class Known:
    """What calls of `check` one after the other need find out but once.

    Attributes:
        infos: what is known of data, by the configuration that they come from.
        built: shapes of the trials whose steps have been built.
    """

    infos: dict[str, DataInfo] = dataclasses.field(default_factory=dict)
    built: set[str] = dataclasses.field(default_factory=set)


def on_cpu() -> None:
    """Keeps this process off the accelerators, which the runs are to have; before any computation."""
    jax.config.update("jax_platforms", "cpu")


@dataclasses.dataclass(frozen=True)
class Checked:
    """A trial that can run.

    Attributes:
        trial: the trial.
        digest: what its run is known by.
        plan: its durations in steps.
        info: what is known of its data.
    """

    trial: Trial
    digest: str
    plan: Plan
    info: DataInfo


def check(trials: Sequence[Trial], file: Path, *, here: bool, known: Known | None = None) -> list[Checked]:
    """Builds every trial's step, abstractly, and finds its data and the weights that it starts from.

    Args:
        trials: what to check.
        file: the experiment file.
        here: whether they will run on devices such as this process sees.
        known: what earlier calls have found out, and this one adds to.

    Raises:
        UsageError: one does not fit together, or two are the same run.
    """
    known = Known() if known is None else known
    infos, built = known.infos, known.built
    seen: dict[str, Checked] = {}
    for trial in trials:
        config = trial.config
        with about(trial):
            if config.parallel.coordinator is not None:
                raise UsageError("parallel.coordinator is given: each run of a sweep is one process")
            source = repr(dataclasses.replace(config.data, augment=type(config.data.augment)(), feed="resident"))
            if source not in infos:
                infos[source] = load_data(config).info
            placement = Placement.of(config) if here else Placement.single()
            if trial.shape not in built:
                _, shapes = build(config, infos[source], placement)
                if config.train.init_from is not None:
                    transfer.fit(transfer.read(Path(config.train.init_from)), config, shapes, infos[source])
                built.add(trial.shape)
            info = infos[source]
            plan = Plan.of(config, info)
            schedule(config.optim, steps=plan.steps, warmup=plan.warmup)
        digest = resume.identity(config, info, file)
        if digest in seen:
            raise UsageError(
                f"{seen[digest].trial} and {trial} are the same run: what they differ in has no part in its numbers; "
                "leave one of them out"
            )
        seen[digest] = Checked(trial, digest, plan, info)
    return list(seen.values())
