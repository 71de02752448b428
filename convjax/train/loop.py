"""The training loop. There is one."""

import contextlib
import dataclasses
import logging
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import jax

from convjax.data.loader import Feed
from convjax.data.order import Draws
from convjax.ops import cpu
from convjax.train import failures, freeze, processes, resume, wandb_log
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config
from convjax.train.config_json import to_json
from convjax.train.evaluate import Evaluator
from convjax.train.events import RATE, WAITED
from convjax.train.interrupts import Interrupted, Interrupts
from convjax.train.log import MetricsLog
from convjax.train.metrics import Evaluation
from convjax.train.parallel import Advance
from convjax.train.peers import Peers
from convjax.train.plan import Plan, draws
from convjax.train.prepare import Equipment, Prepared, equip, prepare
from convjax.train.progress import ProgressReport
from convjax.train.result import Result
from convjax.train.run import Run
from convjax.train.stack import Lane
from convjax.train.state import TrainState
from convjax.train.waits import Waits

_logger = logging.getLogger(__name__)


def train(config: Config, run: Run, experiment: Path | None = None, interrupts: Interrupts | None = None) -> Result:
    """Trains, or goes on with, the run of a configuration, and evaluates its best checkpoint on the test split.

    Everything is checked before the run's directory is touched. A run that was stopped, wherever and however,
    goes on from its latest checkpoint to the same bits as if it had never stopped.

    Args:
        config: the experiment.
        run: where it lives.
        experiment: the file that defined `config`; a copy is kept with the run.
        interrupts: entered by the caller, if signals are to stop the run with a checkpoint.

    Raises:
        UsageError: the configuration, the data or the directory is wrong.
        RunError: no checkpoint is intact, one cannot be saved, or the training diverges.
        Interrupted: a signal stopped it.
    """
    steps = training(config, run, experiment, interrupts)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Result, end.value)


def training(
    config: Config,
    run: Run,
    experiment: Path | None = None,
    interrupts: Interrupts | None = None,
    given: tuple[Prepared, Equipment] | None = None,
) -> Generator[Any, None, Result]:
    """Trains as `train` does, and pauses before each step, so that other runs can come to theirs.

    Args:
        config: the experiment.
        run: where it lives.
        experiment: the file that defines `config`.
        interrupts: see `train`.
        given: what it trains with, where it shares that with other runs.

    Yields:
        What the step will be given; see `Feed.batches`.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(failures.explained())
        stack.enter_context(cpu.switched_on())
        prepared = given[0] if given else processes.everywhere(lambda: prepare(config, run, experiment))
        start, info = prepared.start, prepared.data.info
        # Nothing is written before all processes have looked.
        processes.require_same(resume.science(config, info, experiment, start.digest if start else ""))
        processes.on_first(lambda: stack.enter_context(run.writing()))
        # Looked at again now that nobody else can write: another process may have trained here meanwhile.
        exists = run.exists()
        changes = resume.check(config, run, experiment) if exists else {}
        finished = run.result.is_file() and not changes
        stack.enter_context(Peers(run.path, index=jax.process_index(), count=jax.process_count()))
        if not exists:
            init = start.to_json() if start else None
            processes.on_first(lambda: run.create(config, info, experiment, init, prepared.seeds))
        elif finished:
            return Result.from_json(run.read_json(run.result.name))
        else:
            step, seeds = run.latest_step(), prepared.seeds
            processes.on_first(lambda: _tell(run.resumed(config, experiment, changes, step, seeds), changes))
        stack.enter_context(failures.noted(run))
        equipment = given[1] if given else equip(config, prepared)
        result = yield from _train(config, run, prepared, equipment, interrupts or Interrupts())
        processes.on_first(lambda: run.write(run.result.name, dataclasses.asdict(result)))
    return result


def _tell(environment: dict[str, Any], changes: dict[str, Any]) -> None:
    """Warns of what is different since the run began, or last went on."""
    for field, (old, new) in changes.items():
        _logger.warning("%s is %r from here on; it was %r", field, new, old)
    if environment:
        lines = "".join(f"\n  {name}: {old} before, {new} now" for name, (old, new) in environment.items())
        _logger.warning("the run goes on elsewhere than it began, its numbers may differ in the last bits:%s", lines)


def _train(
    config: Config, run: Run, prepared: Prepared, equipment: Equipment, interrupts: Interrupts
) -> Generator[Any, None, Result]:
    shapes, start = prepared.shapes, prepared.start
    splits, evaluator, advance = equipment
    plan = Plan.of(config, prepared.data.info)
    accuracies: dict[int, float] = {}
    with Checkpoints(run.checkpoints, accuracies, keep=config.train.keep) as checkpoints:
        saved = checkpoints.restore("latest", shapes) if checkpoints.steps() else None
        done = saved.step if saved else 0
        with (
            wandb_log.opened(config.wandb, run.path, to_json(config), first=processes.is_first()) as wandb,
            MetricsLog(
                run.path, step=done, mark=saved.log if saved else None, writes=processes.is_first(), wandb=wandb
            ) as log,
            ProgressReport(
                step=done,
                steps=plan.steps,
                batch_size=config.train.batch_size,
                quiet=not processes.is_first(),
                name=f"seed {config.seed}" if prepared.seeds else "",
            ) as progress,
        ):
            accuracies |= log.accuracies
            if saved is None:
                for line in [
                    *(start.describe() if start else ()),
                    *freeze.describe(config.optim, shapes.params, shapes.batch_stats),
                ]:
                    progress.say(line)
            yield from _Loop(
                config=config,
                plan=plan,
                advance=advance,
                train=splits["train"],
                draws=draws(config, len(splits["train"])),
                validation=splits.get("validation"),
                evaluator=evaluator,
                checkpoints=checkpoints,
                accuracies=accuracies,
                log=log,
                progress=progress,
                interrupts=interrupts,
                waits=Waits(measures=config.data.feed == "streamed"),
            ).run(saved.state if saved else prepared.initial(config))
        best = checkpoints.restore("best", shapes)
    last = best.state.replace(ema={})
    return Result(
        checkpoint=best.step,
        validation=evaluator("validation", best.state, splits["validation"]) if "validation" in splits else None,
        test=evaluator("test", best.state, splits["test"]),
        unaveraged_test=evaluator("test", last, splits["test"]) if best.state.ema else None,
    )


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The steps of a run, with checkpoints and evaluations in between."""

    config: Config
    plan: Plan
    advance: Advance | Lane
    train: Feed
    draws: Draws
    validation: Feed | None
    evaluator: Evaluator
    checkpoints: Checkpoints
    accuracies: dict[int, float]
    log: MetricsLog
    progress: ProgressReport
    interrupts: Interrupts
    waits: Waits

    def run(self, state: TrainState) -> Generator[Any, None, None]:
        """Runs from the state's step to the end; what was done is saved when this returns or is interrupted.

        Yields:
            What each step will be given.
        """
        start = int(state.step)
        if start:
            self.progress.say(f"going on from step {start} of {self.plan.steps}")
            if self.plan.evaluates_after(start):
                self._validate(start, state)  # a checkpoint is saved before it is evaluated
        state = self.advance.enter(state)
        before: Any = None
        with contextlib.ExitStack() as holding, self.waits:
            batches = self.train.batches(self.draws.ids, start, self.plan.steps, self.draws.epochs)
            for number, given in enumerate(self.waits.over(batches), start=start + 1):
                yield given
                state, metrics = self.advance(state, given)
                self.waits.dispatched(metrics)
                # A step is settled after the next one is dispatched: the device has work while the host waits.
                if before is not None:
                    self._settle(number - 1, before)
                if number == start + 2:  # from here on there is something to lose
                    holding.enter_context(self.interrupts.holding())
                before = metrics
                stop = processes.agreed(self.interrupts.received, number)
                if self.plan.saves_after(number) or stop:
                    self._settle(number, metrics)
                    before = None
                    plain = self.advance.leave(state)
                    self.checkpoints.save(plain, self.log.sync())
                    self._stop_if(stop, number)
                    if self.plan.evaluates_after(number):
                        self._validate(number, plain)
            self.checkpoints.wait()
            if summary := self.waits.summary():
                self.progress.say(summary)
        self._stop_if(processes.agreed(self.interrupts.received, None), self.plan.steps)

    def _stop_if(self, received: signal.Signals | None, step: int) -> None:
        """Leaves after a signal, once the checkpoint of `step`, saved already or being saved, is on disk."""
        if received is not None:
            self.checkpoints.wait()
            raise Interrupted(received, step)

    def _settle(self, number: int, metrics: Any) -> None:
        """Waits for a step's metrics; logs them where their time has come."""
        scalars = {f"train.{name}": value for name, value in self.advance.read(metrics).items()}
        skipped = int(scalars.pop("train.skipped"))
        skips = self.config.train.on_nonfinite == "skip"
        broken = bool(scalars.pop("train.broken"))
        if broken:
            self._nonfinite(number, scalars, skipped)
        if number % self.config.train.log_every == 0 or number == self.plan.steps or broken:
            self.log.write(number, {**scalars, "train.skipped": skipped} if skips else scalars)
            self.log.write_timings(number, {RATE: self.progress.rate, WAITED: self.waits.share})
            if advice := self.waits.advice():
                self.progress.say(advice)
        self.progress.advance(number, scalars["train.loss"], scalars["train.accuracy"])

    def _nonfinite(self, number: int, scalars: dict[str, float], skipped: int) -> None:
        """Stops the run at a loss or gradient that is not finite, or tells that its update was left out."""
        found = failures.nonfinite(number, scalars["train.loss"], scalars["train.gradient_norm"])
        limit = self.config.train.nonfinite_limit
        skips = self.config.train.on_nonfinite == "skip"
        if skips and skipped <= limit:
            self.progress.say(f"{found}: its update is left out, the {skipped}. of at most {limit}")
            return
        ids = self.draws.ids(number - 1) % len(self.train)
        raise failures.diverged(found, number, ids, skipped=skipped if skips else None, limit=limit)

    def _validate(self, number: int, state: TrainState) -> None:
        """Logs loss and accuracy on the validation split, if there is one; those of both kinds of weights with an EMA.

        The headline is that of the moving averages, where there are some.
        """
        if self.validation is None:
            return

        def evaluate(state: TrainState) -> Evaluation:
            assert self.validation is not None
            return self.evaluator(
                "validation",
                state,
                self.validation,
                # Several processes cannot stop between two batches without asking each other after each.
                after_batch=lambda: self._stop_if(self.interrupts.received if processes.is_alone() else None, number),
            )

        evaluation = evaluate(state)
        scalars = {"validation.loss": evaluation.loss, "validation.accuracy": evaluation.accuracy}
        more = ""
        if state.ema:
            last = evaluate(state.replace(ema={}))
            scalars |= {"validation.unaveraged.loss": last.loss, "validation.unaveraged.accuracy": last.accuracy}
            more = f"  (weights not averaged: {100 * last.accuracy:.2f} %)"
        self.log.write(number, scalars)
        self.accuracies[number] = evaluation.accuracy
        self.progress.say(
            f"step {number}/{self.plan.steps}  validation: loss {evaluation.loss:.3f}  "
            f"accuracy {100 * evaluation.accuracy:.2f} %{more}"
        )
