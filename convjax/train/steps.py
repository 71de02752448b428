"""The steps of a run, one after the other: what the training loop does between its start and its result."""

import contextlib
import dataclasses
import signal
from collections.abc import Generator
from typing import Any

from convjax.data.loader import Feed
from convjax.data.order import Draws
from convjax.train import failures, processes
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config
from convjax.train.evaluate import Evaluator
from convjax.train.events import RATE, WAITED
from convjax.train.interrupts import Interrupted, Interrupts
from convjax.train.log import MetricsLog
from convjax.train.metrics import Evaluation
from convjax.train.parallel import Advance
from convjax.train.plan import Plan
from convjax.train.progress import ProgressReport
from convjax.train.stack import Lane
from convjax.train.state import TrainState
from convjax.train.waits import Waits


@dataclasses.dataclass(frozen=True)
class Steps:
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
