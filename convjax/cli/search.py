"""`convjax sweep EXPERIMENT AXIS=RANGE ... --sampler tpe --trials N`: a sweep that chooses what to try."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from convjax.cli.console import console
from convjax.errors import RunError, UsageError
from convjax.sweep.study import Sampler
from convjax.train.interrupts import exit_code

if TYPE_CHECKING:
    from convjax.sweep.resources import Share
    from convjax.sweep.space import Space
    from convjax.sweep.study import Study
    from convjax.train.experiment import Experiment

_BEST = 5
"""Trials that are listed at the end."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Searches instead of trying every combination, for the highest accuracy on the validation split.

    Axes may then be ranges as well: optim.lr=0.01..1:log, model.width=8..64:8.
    """

    sampler: Sampler | None = None
    """tpe: near what was good so far (arXiv:2304.11127); random: anywhere; grid: every combination in its order."""
    trials: int | None = None
    """How many trials there are to be in the end, those of earlier starts among them; not needed with a grid."""
    prune: bool = True
    """Stop a run whose validation accuracy is below the median of what others had after as many evaluations."""
    storage: str | None = None
    """SQLAlchemy's address of a database, for several machines; None takes search.db in the sweep's directory."""
    study: str | None = None
    """The search's name in its storage; None takes the experiment's name."""
    sampler_seed: int = 0
    """Seed of the sampler; runs have the seed of --seed."""

    def __post_init__(self) -> None:
        if self.sampler is None:
            for name in ("trials", "storage", "study"):
                if getattr(self, name) is not None:
                    raise UsageError(f"--{name} belongs to a search: give --sampler tpe, random or grid, too")
        elif self.trials is None and self.sampler != "grid":
            raise UsageError(f"--sampler {self.sampler} needs --trials, the number of trials")
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"--trials is {self.trials}: it must be at least 1")


def run(
    request: Request, file: Path, path: Path, given: Sequence[str], flags: Sequence[str], shares: "Sequence[Share]"
) -> None:
    """Searches.

    Args:
        request: how.
        file: the experiment file.
        path: the sweep's directory.
        given: axes, as they are written.
        flags: of `convjax train`.
        shares: parts of this machine, one for each run at once.
    """
    from convjax.cli.experiment import parse_flags
    from convjax.sweep import check, conduct, study
    from convjax.sweep.local import Local
    from convjax.sweep.record import FILE, Sweep
    from convjax.sweep.resources import Machine
    from convjax.sweep.search import Plan, Search
    from convjax.sweep.trials import Trial
    from convjax.train import experiment

    assert request.sampler is not None
    check.on_cpu()
    conduct.check(path)
    if (path / FILE).is_file() and not (path / study.PLACE).is_file():
        raise UsageError(f"{path} holds a sweep that is no search: take another --workdir")
    content = file.read_bytes() if file.is_file() else b""
    read = experiment.read(file)
    space = _space(read, given, flags)
    grid = space.grid() if request.sampler == "grid" else []
    config = parse_flags("sweep", read, flags).config
    if config.data.validation == 0:
        raise UsageError("data.validation is 0: a search chooses by the validation split, not by the test split")
    here = not Machine.here().accelerators
    known = check.Known()
    (base,) = check.check([Trial({}, tuple(flags), config)], file, here=here, known=known)

    path.mkdir(parents=True, exist_ok=True)
    address, name = request.storage or study.default_address(path), request.study or file.stem
    record = study.Study(address, name, request.sampler, space.distributions(), base.digest)
    before = Sweep.read(path) if (path / FILE).is_file() else Sweep(path, str(file), {}, ())
    plan = Plan(path, file, request.trials or len(grid), len(shares), request.sampler_seed, request.prune, here)
    with conduct.writing(before, content):
        record.plan(grid)
        search = Search(plan, space, record, Local(shares), lambda line: console().print(line, soft_wrap=True), known)
        try:
            search.run()
        except conduct.Stopped as stopped:
            command = shlex.join(["convjax", *sys.argv[1:]])
            print(f"convjax: {stopped}; go on with: {command}", file=sys.stderr)
            sys.exit(exit_code(stopped.signal))
    _print(record)


def _space(read: "Experiment", given: Sequence[str], flags: Sequence[str]) -> "Space":
    """Returns what the search chooses from: the file's axes, but for seeds, and those given."""
    from convjax.cli.experiment import parse_flags
    from convjax.sweep import axes, space
    from convjax.train.config import Config

    def parse(flags: Sequence[str]) -> Config:
        return parse_flags("sweep", read, flags).config

    own: list[space.Varied] = [axis for axis in axes.of_file(read) if axis.name != "seed"]
    varied = axes.override(own, [space.of_command(text, read, parse, flags) for text in given])
    if not varied:
        raise UsageError(f"nothing varies: {read.path} defines no `axes`, and none is given, as optim.lr=0.01..1:log")
    return space.Space(varied, tuple(flags), parse, read.keep)


def _print(record: "Study") -> None:
    """Prints how many trials there are, and the best."""
    from convjax.sweep.trials import describe

    counts = record.counts()
    print(f"{counts.all} trials: {counts.finished} finished, {counts.pruned} pruned, {counts.failed} failed")
    best = record.best(_BEST)
    if not best:
        raise RunError("no trial has finished; their output lies in the sweep's directory under logs/")
    table = Table("trial", "run", "settings", "validation accuracy", box=None, header_style="bold")
    for trial in best:
        settings, digest = trial.user_attrs["settings"], trial.user_attrs["digest"]
        table.add_row(str(trial.number), digest[:12], describe(settings), f"{100 * (trial.value or 0.0):.2f} %")
    console().print(table)
