"""Searches; only the last test trains: elsewhere a launcher writes the files that runs leave."""

import itertools
import math
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import made
import optuna
import pytest
from real_command import EXPERIMENT

from convjax.cli.experiment import parse_flags
from convjax.cli.search import Request
from convjax.errors import UsageError
from convjax.sweep import check, conduct, study
from convjax.sweep.comparison import compare
from convjax.sweep.job import Job
from convjax.sweep.launch import Standing
from convjax.sweep.record import Sweep
from convjax.sweep.search import Plan, Search
from convjax.sweep.space import Range, Space, of_command
from convjax.sweep.study import Sampler, Study
from convjax.train import experiment
from convjax.train.log import MetricsLog

EVALUATIONS = 4


class Pretends:
    """A launcher whose runs, at each look, write another evaluation; they end after four, with the last one's value."""

    interval = 0.001

    def __init__(self, accuracy: Callable[[Mapping[str, Any]], float], crash: int | None = None) -> None:
        """Prepares a launcher.

        Args:
            accuracy: of settings.
            crash: number of looks after which it fails, as if the machine went down.
        """
        self.accuracy, self.crash = accuracy, crash
        self.submitted: list[dict[str, Any]] = []
        self.signals: list[tuple[str, signal.Signals]] = []
        self.looks = 0
        self._jobs: dict[str, tuple[Job, int]] = {}

    def check(self, experiment: bytes) -> None:
        pass

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.submitted.append(dict(job.arm.settings))
            self._jobs[job.arm.name] = job, 0

    def poll(self) -> Standing:
        self.looks += 1
        if self.crash == self.looks:
            raise MemoryError
        for name, (job, done) in list(self._jobs.items()):
            self._jobs[name] = job, done + 1
            accuracy = self.accuracy(job.arm.settings)
            if math.isnan(accuracy):
                made.fail(job.arm, "the loss of step 12 is nan: the training has diverged")
            elif done == EVALUATIONS:
                made.finish(job.arm, accuracy)
            else:
                job.arm.directory.mkdir(parents=True, exist_ok=True)
                with MetricsLog(job.arm.directory) as log:
                    for i in range(done + 1):
                        log.write(10 * (i + 1), {"validation.accuracy": accuracy * (i + 1) / EVALUATIONS})
                continue
            del self._jobs[name]
        return Standing(frozenset(), frozenset(self._jobs))

    def stop_run(self, name: str, received: signal.Signals) -> None:
        self.signals.append((name, received))
        job, _ = self._jobs.pop(name)
        job.arm.exit.parent.mkdir(exist_ok=True)
        job.ended(128 + received)

    def stop(self, received: signal.Signals) -> None:
        for name in list(self._jobs):
            self.stop_run(name, received)

    def advice(self) -> str | None:
        return None


@pytest.fixture(scope="module")
def known() -> check.Known:
    return check.Known()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


def space_of(file: Path, *axes: str) -> Space:
    read = experiment.read(file)

    def parse(flags: Sequence[str]) -> Any:
        return parse_flags("sweep", read, flags).config

    varied = [of_command(text, read, parse, ()) for text in axes]
    return Space({axis.name: axis for axis in varied}, (), parse, read.keep)


def search(
    file: Path,
    axes: Sequence[str],
    launcher: Pretends,
    known: check.Known,
    *,
    sampler: Sampler = "random",
    trials: int = 5,
    jobs: int = 1,
    place: str = "x",
    storage: str | None = None,
) -> tuple[Study, list[str]]:
    """Searches; returns the study, and what was printed."""
    path = file.parent / place
    path.mkdir(exist_ok=True)
    space = space_of(file, *axes)
    record = Study(storage or study.default_address(path), "tiny", sampler, space.distributions(), "code")
    plan = Plan(path, file, trials, jobs, 0, True, True)
    said: list[str] = []
    with conduct.writing(Sweep(path, str(file), {}, ()), file.read_bytes()):
        record.plan(space.grid() if sampler == "grid" else [])
        Search(plan, space, record, launcher, said.append, known).run()
    return record, said


def rate(settings: Mapping[str, Any]) -> float:
    return 0.9 - abs(math.log10(settings["optim.lr"]) + 1) / 10


RATES = ["optim.lr=0.001..1:log"]


def test_every_trial_is_a_run_of_its_own(tiny: Path, known: check.Known) -> None:
    launcher = Pretends(rate)
    record, said = search(tiny, RATES, launcher, known, trials=6, jobs=3)
    counts = record.counts()
    assert counts.all == 6
    assert counts.running == counts.failed == 0
    assert len(launcher.submitted) == len({each["optim.lr"] for each in launcher.submitted}) == 6
    assert all(0.001 <= each["optim.lr"] <= 1 for each in launcher.submitted)
    # The storage is the record: Optuna alone reads all of it, and the best has the highest validation accuracy.
    stored = optuna.load_study(study_name="tiny", storage=study.default_address(tiny.parent / "x"))
    assert stored.best_trial.number == record.best(1)[0].number
    rates = [each.user_attrs["settings"]["optim.lr"] for each in stored.trials if each.state.name == "COMPLETE"]
    assert stored.best_value == pytest.approx(max(rate({"optim.lr": each}) for each in rates) - 0.01)
    # And it is a sweep like others.
    found = compare(tiny.parent / "x", costs=False)
    assert len(found.arms) == 6
    assert sum("finished" in line for line in said) == counts.finished


def test_the_hopeless_are_stopped_and_recorded(tiny: Path, known: check.Known) -> None:
    ranks: dict[float, int] = {}

    def accuracy(settings: Mapping[str, Any]) -> float:
        # The first five are good, the later ones bad.
        return 0.8 if ranks.setdefault(settings["optim.lr"], len(ranks)) < 5 else 0.2

    launcher = Pretends(accuracy)
    record, said = search(tiny, RATES, launcher, known, trials=7)
    counts = record.counts()
    assert (counts.finished, counts.pruned) == (5, 2)
    assert [received for _, received in launcher.signals] == [signal.SIGTERM] * 2
    # Not at the first evaluation, which says too little, but at the second, of step 20.
    found = compare(tiny.parent / "x", costs=False)
    assert [run.problem for run in found.lost] == ["pruned at step 20"] * 2
    assert sum("1 of 1 runs do not count (1 pruned)" in note for note in found.notes) == 2
    assert {run.name for run in found.lost} == {name for name, _ in launcher.signals}
    assert sum("pruned" in line and line.endswith("after step 20") for line in said) == 2


def test_what_diverges_counts_as_bad_and_what_crashes_as_nothing(tiny: Path, known: check.Known) -> None:
    record, said = search(tiny, RATES, Pretends(lambda settings: float("nan")), known, trials=2)
    assert (record.counts().pruned, record.counts().finished) == (2, 0)
    assert sum("diverged at step 12" in line for line in said) == 2


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_was_killed_goes_on_to_the_same_trials(tiny: Path, known: check.Known, sampler: Sampler) -> None:
    whole = Pretends(rate)
    search(tiny, RATES, whole, known, sampler=sampler, trials=4, place="whole")
    killed = Pretends(rate, crash=8)  # in the second trial
    with pytest.raises(MemoryError):
        search(tiny, RATES, killed, known, sampler=sampler, trials=4)
    assert len(killed.submitted) == 2
    again = Pretends(rate)
    record, _ = search(tiny, RATES, again, known, sampler=sampler, trials=4)
    assert record.counts().finished + record.counts().pruned == 4
    # The second one is taken up again, the first is not.
    assert [*killed.submitted[:1], *again.submitted] == whole.submitted
    # Once more there is nothing to do.
    idle = Pretends(rate)
    search(tiny, RATES, idle, known, sampler=sampler, trials=4)
    assert idle.submitted == []


def test_a_grid_is_gone_through_once(tiny: Path, known: check.Known) -> None:
    axes = ["optim.lr=0.1,0.2", "optim.beta2=0.1,0.2,0.3", "optim.momentum=0.5..0.9:0.4"]
    launcher = Pretends(rate)
    record, _ = search(tiny, axes, launcher, known, sampler="grid", trials=100, jobs=2)
    assert [tuple(each.values()) for each in launcher.submitted] == list(
        itertools.product([0.1, 0.2], [0.1, 0.2, 0.3], [0.5, 0.9])
    )
    assert record.counts().all == 12


def test_a_space_that_is_used_up_ends_the_search(tiny: Path, known: check.Known) -> None:
    launcher = Pretends(rate)
    record, said = search(tiny, ["optim.lr=0.1,0.2", "optim.nesterov=true,false"], launcher, known, trials=10)
    assert len(launcher.submitted) == record.counts().all == 4
    assert "nothing left to try" in said[-1]
    assert any("the same run as trial" in line for line in said)


def test_what_cannot_be_is_told_and_not_tried(tiny: Path, known: check.Known) -> None:
    # There are 1293 training examples of digits.
    launcher = Pretends(lambda settings: 0.5)
    record, said = search(tiny, ["train.batch_size=1290..1297"], launcher, known, trials=4)
    assert sorted(each["train.batch_size"] for each in launcher.submitted) == [1290, 1291, 1292, 1293]
    assert record.counts().all == 4
    refused = [line for line in said if line.startswith("not tried:")]
    assert all("same run" in line or "must be at most 1293" in line for line in refused)


def test_two_searches_on_one_storage_share_the_trials(tiny: Path, known: check.Known) -> None:
    storage = study.default_address(tiny.parent)
    launchers = [Pretends(rate), Pretends(rate)]
    for place, launcher, trials in (("a", launchers[0], 2), ("b", launchers[1], 6)):
        record, _ = search(
            tiny,
            ["optim.lr=0.1,0.2", "optim.nesterov=true,false"],
            launcher,
            known,
            place=place,
            trials=trials,
            storage=storage,
        )
    submitted = [tuple(each.values()) for launcher in launchers for each in launcher.submitted]
    assert len(submitted) == len(set(submitted)) == record.counts().all == 4
    assert [len(launcher.submitted) for launcher in launchers] == [2, 2]
    # Each directory holds its own runs.
    assert [len(Sweep.read(tiny.parent / place).runs) for place in "ab"] == [2, 2]


def test_of_two_that_look_at_each_other_the_later_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"x": optuna.distributions.CategoricalDistribution(["same"])}
    record = Study(study.default_address(tmp_path), "x", "random", space, "code")
    early, late = record.ask(0, "a"), record.ask(0, "b")
    assert early is not None
    assert late is not None
    # Both have written their digests, and neither has begun.
    early.set_user_attr("digest", "same")
    late.set_user_attr("digest", "same")
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        found = record.begin(late, "same", {})
        assert found is not None
        assert found.number == early.number
        record.reject(late, "the same")

    monkeypatch.setattr("time.sleep", nap)
    assert record.begin(early, "same", {}) is None
    assert len(naps) == 1


def test_of_workers_that_begin_the_same_at_once_one_goes_on(tmp_path: Path) -> None:
    space = {"x": optuna.distributions.CategoricalDistribution([str(i) for i in range(4)])}
    address = study.default_address(tmp_path)
    Study(address, "x", "random", space, "code")
    begun: list[str] = []

    def work(worker: int) -> None:
        own = Study(address, "x", "random", space, "code")
        for i in range(5):
            trial = own.ask(i, str(worker))  # the same seeds in all workers
            assert trial is not None
            if own.begin(trial, trial.params["x"], {}) is None:
                begun.append(trial.params["x"])
            else:
                own.reject(trial, "the same")

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(begun) == len(set(begun))
    assert len(begun) >= 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=0.01..1:log", Range("optim.lr", 0.01, 1.0, log=True, step=None, whole=False)),
        ("optim.lr=1e-3..1", Range("optim.lr", 0.001, 1.0, log=False, step=None, whole=False)),
        ("train.batch_size=8..64:8", Range("train.batch_size", 8, 64, log=False, step=8.0, whole=True)),
        ("optim.clip_norm=1..5", Range("optim.clip_norm", 1, 5, log=False, step=None, whole=False)),
    ],
)
def test_ranges_take_the_type_of_their_field(tiny: Path, text: str, expected: Range) -> None:
    assert space_of(tiny, text).varied[expected.name] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr=1..0.1", "it must rise"),
        ("optim.lr=0..1:log", "it must begin above 0"),
        ("optim.lr=0.1..1:lin", "a range must read like"),
        ("optim.rl=0.1..1", "did you mean optim.lr"),
        ("train.batch_size=8..64:0.5", "must be a whole number"),
        ("train.batch_size=0.5..64", "must be a whole number"),
        ("optim.name=1..2", "must be one of sgd, rmsprop"),
        ("optim.nesterov=0..1", "optim.nesterov"),
        ("seed=0..4", "a search does not choose the seed"),
    ],
)
def test_ranges_that_are_none(tiny: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        space_of(tiny, text)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"sampler": "tpe"}, "needs --trials"),
        ({"trials": 3}, "give --sampler tpe, random or grid"),
        ({"sampler": "tpe", "trials": 0}, "must be at least 1"),
    ],
)
def test_requests_that_are_none(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Request(**request_)


def test_a_grid_needs_steps(tiny: Path) -> None:
    with pytest.raises(UsageError, match="a grid needs values"):
        space_of(tiny, "optim.lr=0.1..1").grid()
    assert space_of(tiny, "train.batch_size=8..24:8").grid() == [{"train.batch_size": n} for n in (8, 16, 24)]


def test_a_study_is_of_one_search(tiny: Path) -> None:
    address = study.default_address(tiny.parent)
    Study(address, "x", "random", space_of(tiny, "optim.lr=0.1..1").distributions(), "code")
    Study(address, "x", "tpe", space_of(tiny, "optim.lr=0.1..1").distributions(), "code")
    with pytest.raises(UsageError, match="with other axes"):
        Study(address, "x", "tpe", space_of(tiny, "optim.lr=0.1..2").distributions(), "code")
    with pytest.raises(UsageError, match="with other flags or code"):
        Study(address, "x", "tpe", space_of(tiny, "optim.lr=0.1..1").distributions(), "other")


def test_an_address_that_is_none_does_not_show_its_password(tiny: Path) -> None:
    with pytest.raises(UsageError, match="--storage cannot be used") as caught:
        Study("postgresql://me:secret@127.0.0.1:1/x", "x", "random", {}, "code")
    assert "secret" not in str(caught.value)


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'convjax\[search\]'"):
        study.optuna()
