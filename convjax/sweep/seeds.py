"""Runs that differ in the seed alone, put together into jobs that train them at once."""

import dataclasses
from collections.abc import Sequence

from convjax.errors import UsageError, about
from convjax.sweep.check import Checked
from convjax.sweep.job import Job
from convjax.train import together
from convjax.train.config_json import to_json


def check(checked: Sequence[Checked]) -> None:
    """Makes sure that there are seeds to be trained at once, and that they can be.

    Raises:
        UsageError: there are none, or a configuration does not allow it.
    """
    if len({_but_seed(each) for each in checked}) == len(checked):
        raise UsageError("--seeds-at-once: no two runs differ in the seed alone; give several, such as seed=0..4")
    for each in checked:
        with about(f"--seeds-at-once: {each.trial}"):
            together.check(each.trial.config)


def joined(jobs: Sequence[Job], checked: Sequence[Checked]) -> list[Job]:
    """Returns jobs that train the same runs, those that differ in the seed alone in one process.

    Args:
        jobs: one for each run.
        checked: the runs, in the same order.
    """
    groups: dict[str, list[tuple[Job, int]]] = {}
    for job, each in zip(jobs, checked, strict=True):
        groups.setdefault(_but_seed(each), []).append((job, each.trial.config.seed))
    return [first.with_seeds({seed: job.arm for job, seed in others}) for (first, _), *others in groups.values()]


def _but_seed(checked: Checked) -> str:
    """Returns what runs have in common that differ in the seed alone."""
    return repr(to_json(dataclasses.replace(checked.trial.config, seed=0)))
