"""The record of a search: an Optuna study, which several searches on several machines may share."""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from convjax.digest import digest
from convjax.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

Sampler: TypeAlias = Literal["tpe", "random", "grid"]

FILE = "search.db"
"""In a sweep's directory: the study, unless it is in a database of its own."""
PLACE = "search.json"
"""In a sweep's directory: the token that studies know it by."""
_STARTUP = 4
"""Trials that end before one can be pruned."""
_WARMUP = 1
"""Evaluations before one after which a trial can be pruned."""
_PATIENCE = 30.0
"""Seconds for another search to begin a trial, or give it up."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many trials of a study there are of each kind; those that repeat another, or cannot be, do not count."""

    finished: int
    pruned: int
    failed: int
    running: int

    @property
    def all(self) -> int:
        return self.finished + self.pruned + self.failed + self.running


class Study:
    """A study. A trial's user attributes tell of its run: place, settings, digest, begun; rejected, or problem."""

    def __init__(
        self, address: str, name: str, sampler: Sampler, space: Mapping[str, "BaseDistribution"], code: str
    ) -> None:
        """Opens the study of that name, or makes it.

        Args:
            address: SQLAlchemy's, of a database.
            name: of the study.
            sampler: which parameters to try next.
            space: what they are drawn from.
            code: what else decides on the trials' numbers.

        Raises:
            UsageError: Optuna is not installed, the address is none, or the study is one of other trials.
        """
        self._optuna = optuna()
        self._sampler, self._space = sampler, dict(space)
        try:
            storage = self._optuna.storages.RDBStorage(address)
            self._study = self._optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=self._optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=_WARMUP),
            )
        except Exception as error:  # SQLAlchemy's, its drivers' or Optuna's own
            # The address is left out: it may hold a password.
            raise UsageError(f"--storage cannot be used: {type(error).__name__}: {_first_line(error)}") from error
        self._require_same({"space": _described(self._space), "code": code}, name)

    def _require_same(self, search: dict[str, Any], name: str) -> None:
        before = self._study.user_attrs.get("search")
        if before is None:
            self._study.set_user_attr("search", search)
        elif before != search:
            what = "axes" if before["space"] != search["space"] else "flags or code"
            raise UsageError(f"study {name} is a search with other {what}: take another --workdir or --study")

    def plan(self, combinations: list[dict[str, Any]]) -> None:
        """Has these parameters tried next, in their order, those that have not been."""
        for parameters in combinations:
            self._study.enqueue_trial(parameters, skip_if_exists=True)

    def ask(self, seed: int, place: str) -> "Trial | None":
        """Begins a trial; None where a grid has no more.

        Which one is a function of the seed and the study's trials: a search that was stopped goes on to the same.

        Args:
            seed: of the sampler.
            place: token of the sweep's directory, in which its run will be.
        """
        known = self._study.get_trials(deepcopy=False)
        waiting = self._optuna.trial.TrialState.WAITING
        if self._sampler == "grid" and all(trial.state != waiting for trial in known):
            return None
        self._study.sampler = self._make_sampler(int(digest(f"{seed} {len(known)}".encode())[:8], 16))
        trial = self._study.ask(self._space)
        trial.set_user_attr("place", place)
        return trial

    def _make_sampler(self, seed: int) -> "BaseSampler":
        samplers = self._optuna.samplers
        if self._sampler == "tpe":
            # Trials at work are taken to be bad, so that several at once do not all try the same.
            return samplers.TPESampler(seed=seed, constant_liar=True)
        return samplers.RandomSampler(seed=seed)

    def distinct(self) -> int:
        """Returns how many combinations of parameters have been asked for, those that were rejected, too."""
        known = self._study.get_trials(deepcopy=False)
        return len({json.dumps(trial.params, sort_keys=True) for trial in known if trial.params})

    def begin(self, trial: "Trial", digest: str, settings: Mapping[str, Any]) -> "FrozenTrial | None":
        """Writes down which run a trial is; returns another trial that is the same run, if there is one, wherever.

        Two that begin the same at once must not both go on. Each writes its digest before it looks at the others.
        The later one gives way; the earlier one, if it sees the later, waits until that has given way or begun.

        Args:
            trial: from `ask` or `orphans`.
            digest: of its run.
            settings: value by axis.
        """
        trial.set_user_attr("settings", dict(settings))
        trial.set_user_attr("digest", digest)
        deadline = time.monotonic() + _PATIENCE
        while True:
            others = [other for other in self.trials() if other.user_attrs["digest"] == digest]
            others = [other for other in others if other.number != trial.number]
            for other in others:
                if other.number < trial.number or "begun" in other.user_attrs or time.monotonic() > deadline:
                    return other
            if not others:
                trial.set_user_attr("begun", True)
                return None
            time.sleep(0.1)

    def reported(self, trial: "Trial") -> int:
        """Returns how many evaluations of a trial have been reported."""
        known = self._study.get_trials(deepcopy=False)
        return len(known[trial.number].intermediate_values)

    def reject(self, trial: "Trial", why: str) -> None:
        """Ends a trial that is no new one."""
        trial.set_user_attr("rejected", why)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def finish(self, trial: "Trial", value: float) -> None:
        """Ends a trial with its validation accuracy."""
        self._study.tell(trial, value)

    def prune(self, trial: "Trial", problem: str) -> None:
        """Ends a trial that is worse than most; samplers take it for one."""
        trial.set_user_attr("problem", problem)
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, trial: "Trial", problem: str) -> None:
        """Ends a trial that says nothing of its parameters."""
        trial.set_user_attr("problem", problem)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def orphans(self, place: str) -> "list[Trial]":
        """Returns the trials at work whose sweep's directory is this one: no other process can be at them."""
        states = self._optuna.trial.TrialState
        found = []
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if trial.user_attrs.get("place") != place:
                continue
            if _rejected(trial):  # by a process that was killed before it could end the trial
                self._study.tell(trial.number, state=states.FAIL)
            else:
                found.append(self._optuna.trial.Trial(self._study, trial._trial_id))
        return found

    def best(self, count: int) -> "list[FrozenTrial]":
        """Returns the finished trials with the highest validation accuracies, so many of them, the best first."""
        finished = [trial for trial in self.trials() if trial.state.name == "COMPLETE"]
        return sorted(finished, key=lambda trial: (-(trial.value or 0.0), trial.number))[:count]

    def trials(self, place: str | None = None) -> "list[FrozenTrial]":
        """Returns the trials that count, by number; with a place, those whose run is in its directory."""
        known = (trial for trial in self._study.get_trials(deepcopy=False) if "digest" in trial.user_attrs)
        return [t for t in known if not _rejected(t) and place in (None, t.user_attrs["place"])]

    def counts(self) -> Counts:
        """Counts the trials, those of other searches on the same storage, too."""
        states = [trial.state.name for trial in self.trials()]
        return Counts(states.count("COMPLETE"), states.count("PRUNED"), states.count("FAIL"), states.count("RUNNING"))


def optuna() -> Any:
    """Returns Optuna.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import optuna as module
    except ImportError as error:
        raise UsageError("--sampler needs Optuna: pip install 'convjax[search]'") from error
    module.logging.set_verbosity(module.logging.ERROR)
    return module


def default_address(path: Path) -> str:
    """Returns the address of a sweep's own database."""
    return f"sqlite:///{path / FILE}"


def _rejected(trial: "FrozenTrial") -> bool:
    return "rejected" in trial.user_attrs


def _described(space: Mapping[str, "BaseDistribution"]) -> dict[str, str]:
    from optuna.distributions import distribution_to_json

    return {name: json.dumps(json.loads(distribution_to_json(each)), sort_keys=True) for name, each in space.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
