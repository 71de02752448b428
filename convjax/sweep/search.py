"""A search at work: asks its study what to try, runs it, stops what is hopeless, and tells the study."""

import contextlib
import dataclasses
import json
import queue
import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from convjax.errors import RunError, UsageError
from convjax.sweep import check, conduct, results
from convjax.sweep.job import Job
from convjax.sweep.launch import Launcher
from convjax.sweep.live import score
from convjax.sweep.record import COPY, Arm, Sweep, axes_of
from convjax.sweep.space import Space
from convjax.sweep.study import PLACE, Study
from convjax.sweep.trials import describe
from convjax.train.run import Run

if TYPE_CHECKING:
    from optuna.trial import Trial

_MOST_REJECTED = 100
"""Trials in a row that may be none, before the search ends."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a search does.

    Attributes:
        path: the sweep's directory.
        experiment: the experiment's file.
        trials: number of trials that the study is to have in the end.
        jobs: runs at once.
        seed: of the sampler.
        prunes: whether hopeless runs are stopped.
        here: whether they will run on devices such as this process sees.
    """

    path: Path
    experiment: Path
    trials: int
    jobs: int
    seed: int
    prunes: bool
    here: bool


class Stops(Launcher, Protocol):
    """A launcher that takes more jobs later, and can stop one."""

    def stop_run(self, name: str, received: signal.Signals) -> None:
        """Passes a signal on to one run, if it is still at work."""
        ...


@dataclasses.dataclass
class _Active:
    """A trial at work.

    Attributes:
        trial: Optuna's.
        arm: its run.
        reported: evaluations that the study knows of.
        stopped: the step after which it was stopped as hopeless.
    """

    trial: "Trial"
    arm: Arm
    reported: int
    stopped: int | None = None


class Search:
    """A search; to be run once."""

    def __init__(
        self,
        plan: Plan,
        space: Space,
        study: Study,
        launcher: Stops,
        say: Callable[[str], None],
        known: check.Known,
    ) -> None:
        """Prepares a search.

        Args:
            plan: what to do.
            space: what to try.
            study: where it is written down.
            launcher: with as many shares as there are runs at once.
            say: prints a line.
            known: what has been found out of the trials.
        """
        self._plan, self._space, self._study = plan, space, study
        self._launcher, self._say = launcher, say
        self._place = place(plan.path)
        self._known = known
        self._active: dict[str, _Active] = {}
        self._rejected, self._told = 0, False

    def run(self) -> None:
        """Tries until the study has its number of trials, or there is nothing new to try.

        Raises:
            RunError: a run cannot be started.
            conduct.Stopped: a signal came, and all that ran has ended.
        """
        stopped: signal.Signals | None = None
        orphans = iter(self._study.orphans(self._place))
        with conduct.signals() as received:
            try:
                while True:
                    if stopped is None:
                        self._fill(orphans)
                    if not self._active:
                        break
                    standing = self._launcher.poll()
                    at_work = standing.waiting | standing.running
                    for name in [name for name in self._active if name not in at_work]:
                        self._settle(self._active.pop(name))
                    for active in self._active.values() if stopped is None else ():
                        self._look_at(active)
                    with contextlib.suppress(queue.Empty):
                        got = received.get(timeout=self._launcher.interval)
                        self._say(f"{got.name}: {conduct.passed_on(len(self._active), again=stopped is not None)}")
                        stopped = got
                        self._launcher.stop(got)
            except BaseException:
                self._launcher.stop(signal.SIGTERM)
                raise
        if stopped is not None:
            raise conduct.Stopped(stopped, None)

    def _fill(self, orphans: "Iterator[Trial]") -> None:
        """Begins as many trials as may run at once, first those that an earlier process left."""
        while len(self._active) < self._plan.jobs:
            trial = next(orphans, None) or self._ask()
            if trial is None:
                return
            self._begin(trial)

    def _ask(self) -> "Trial | None":
        if self._study.counts().all >= self._plan.trials:
            return None
        if self._rejected >= _MOST_REJECTED or self._study.distinct() >= self._space.size:
            if not self._told:
                self._say("there is nothing left to try: what is drawn is nothing new any more")
            self._told = True
            return None
        return self._study.ask(self._plan.seed, self._place)

    def _begin(self, trial: "Trial") -> None:
        """Begins a trial's run, or rejects it."""
        plan = self._plan
        try:
            found = self._space.trial(trial.params)
            (checked,) = check.check([found], plan.experiment, here=plan.here, known=self._known)
        except UsageError as error:
            self._reject(trial, str(error))
            return
        same = self._study.begin(trial, checked.digest, found.settings)
        if same is not None:
            self._reject(trial, f"the same run as trial {same.number}")
            return
        self._rejected = 0
        arm = Arm.of(plan.path, checked.digest, found.settings)
        self._write()
        self._active[arm.name] = _Active(trial, arm, self._study.reported(trial))
        self._launcher.submit([Job.of(arm, plan.path / COPY, found.flags)])
        self._say(f"{self._count()} running   {arm.name}  {describe(arm.settings)}")

    def _reject(self, trial: "Trial", why: str) -> None:
        self._rejected += 1
        self._study.reject(trial, why)
        self._say(f"not tried: {describe(trial.params)}: {why}")

    def _write(self) -> None:
        """Writes down the sweep that the search has become, for `convjax compare`."""
        settings = {
            trial.user_attrs["digest"]: trial.user_attrs["settings"] for trial in self._study.trials(self._place)
        }
        arms = tuple(Arm.of(self._plan.path, digest, each) for digest, each in settings.items())
        Sweep(self._plan.path, str(self._plan.experiment), axes_of(arms), arms).write()

    def _evaluated(self, active: _Active) -> int | None:
        """Tells the study of a run's new evaluations; returns the step after which it looks hopeless."""
        try:
            accuracies = sorted(Run(active.arm.directory).accuracies().items())
        except RunError:  # the run itself will tell
            return None
        new = list(enumerate(accuracies))[active.reported :]
        for number, (_, accuracy) in new:
            active.trial.report(accuracy, number)
        active.reported += len(new)
        return accuracies[-1][0] if new and active.trial.should_prune() else None

    def _look_at(self, active: _Active) -> None:
        """Stops a run that is hopeless."""
        if active.stopped is None and self._plan.prunes:
            active.stopped = self._evaluated(active)
            if active.stopped is not None:
                self._launcher.stop_run(active.arm.name, signal.SIGTERM)

    def _settle(self, active: _Active) -> None:
        """Tells the study what a run has ended with; one that was stopped by a signal is taken up again later."""
        arm, trial, state = active.arm, active.trial, active.arm.state
        if state == "finished":
            found = score(arm)
            self._evaluated(active)
            self._study.finish(trial, found.validation or 0.0)
            self._tell("finished", arm, str(found))
        elif active.stopped is not None and state == "missing":
            arm.pruned.write_text(f"{active.stopped}\n")
            self._study.prune(trial, results.problem(arm, state))
            self._tell("pruned", arm, f"after step {active.stopped}")
        elif state == "failed":
            problem = results.problem(arm, state)
            # A sampler learns of a run that diverged, and not of one whose machine ran out of memory.
            end = self._study.prune if problem.startswith("diverged") else self._study.fail
            end(trial, problem)
            self._tell("failed", arm, f"{problem} (see {arm.log})")
        else:
            self._tell("stopped", arm, "")

    def _tell(self, what: str, arm: Arm, more: str) -> None:
        self._say(f"{self._count()} {what:<9} {arm.name}  {describe(arm.settings)}  {more}".rstrip())

    def _count(self) -> str:
        counts = self._study.counts()
        return f"[{counts.all - counts.running}/{self._plan.trials}]"


def place(path: Path) -> str:
    """Returns the token that a sweep's directory is known by, wherever it is moved; makes one for a new search.

    Raises:
        OSError: it cannot be written.
    """
    file = path / PLACE
    if not file.is_file():
        file.write_text(json.dumps({"format": 1, "place": secrets.token_hex(8)}) + "\n")
    token: str = json.loads(file.read_text())["place"]
    return token
