"""The training loop. There is one."""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np

from convjax.data import order
from convjax.data.loader import Resident, take
from convjax.errors import RunError, UsageError
from convjax.train import state as states
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config
from convjax.train.evaluate import Evaluator, Plan, build, load_data
from convjax.train.log import MetricsLog, ProgressReport
from convjax.train.metrics import Evaluation
from convjax.train.run import Run
from convjax.train.state import TrainState
from convjax.train.step import Step


@dataclasses.dataclass(frozen=True)
class Result:
    """Attributes:
    checkpoint: step of the checkpoint chosen by validation accuracy, the latest one without validation.
    validation: its evaluation on the validation split, None without one.
    test: its evaluation on the test split.
    """

    checkpoint: int
    validation: Evaluation | None
    test: Evaluation


def train(config: Config, run: Run, experiment: Path | None = None) -> Result:
    """Trains, or goes on with, the run of a configuration, and evaluates its best checkpoint on the test split.

    Everything is checked before the run's directory is touched.

    Args:
        config: the experiment.
        run: where it lives; a run of the same configuration goes on from its latest checkpoint.
        experiment: the file that defined `config`; a copy is kept with the run.

    Raises:
        UsageError: the configuration, the data or the directory is wrong.
        RunError: a checkpoint is damaged or cannot be saved, or the training diverges.
    """
    run.check(config)
    data = load_data(config)
    if run.exists() and run.read_info() != data.info:
        raise UsageError(
            f"{run.path} was trained on other data than {data.info.name} {data.info.version} as it is now "
            f"(compare data.json there): take another --workdir"
        )
    step, shapes = build(config, data.info)
    plan = Plan.of(config, data.info)
    run.create(config, data.info, experiment)

    evaluator = Evaluator(step, data.info.class_names, config.train.batch_size)
    validation = Resident(data.splits["validation"]) if len(data.splits["validation"]) else None
    with Checkpoints(run.checkpoints) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done < plan.steps:
            if done:
                state = checkpoints.restore(done, shapes)
            else:
                state = states.init(config.model, step.optimizer, data.info.image, config.seed)
            with (
                MetricsLog(run.path, step=done) as log,
                ProgressReport(step=done, steps=plan.steps, batch_size=config.train.batch_size) as progress,
            ):
                _Loop(
                    config=config,
                    plan=plan,
                    step=step,
                    train=Resident(data.splits["train"]),
                    validation=validation,
                    evaluator=evaluator,
                    checkpoints=checkpoints,
                    log=log,
                    progress=progress,
                ).run(state)
        checkpoints.wait()
        chosen = checkpoints.step_of("best")
        best = checkpoints.restore(chosen, shapes)

    result = Result(
        checkpoint=chosen,
        validation=None if validation is None else evaluator("validation", best, validation),
        test=evaluator("test", best, Resident(data.splits["test"])),
    )
    run.write("result.json", dataclasses.asdict(result))
    return result


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The steps of a run, with evaluations and checkpoints in between."""

    config: Config
    plan: Plan
    step: Step
    train: Resident
    validation: Resident | None
    evaluator: Evaluator
    checkpoints: Checkpoints
    log: MetricsLog
    progress: ProgressReport

    def run(self, state: TrainState) -> None:
        """Runs from the state's step to the end."""

        def advance(
            state: TrainState, images: jax.Array, labels: jax.Array, ids: jax.Array
        ) -> tuple[TrainState, dict[str, jax.Array]]:
            return self.step.train(state, take(images, labels, ids))

        compiled = jax.jit(advance, donate_argnums=0)
        start = int(state.step)
        if start:
            self.progress.say(f"going on from step {start} of {self.plan.steps}")
        before: dict[str, jax.Array] | None = None
        for number in range(start + 1, self.plan.steps + 1):
            ids = order.batch_ids(self.config.seed, number - 1, self.config.train.batch_size, len(self.train))
            state, metrics = compiled(state, self.train.images, self.train.labels, ids.astype(np.int32))
            # A step is settled after the next one is dispatched: the device has work while the host waits.
            if before is not None:
                self._settle(number - 1, before)
            before = metrics
            if self.plan.evaluates_after(number):
                self._settle(number, metrics)
                before = None
                self.checkpoints.save(state, self._validate(number, state))

    def _settle(self, number: int, metrics: dict[str, jax.Array]) -> None:
        """Waits for a step's metrics; logs them where their time has come."""
        scalars = {f"train.{name}": float(value) for name, value in jax.device_get(metrics).items()}
        if not math.isfinite(scalars["train.loss"]):
            raise RunError(
                f"the loss of step {number} is {scalars['train.loss']}: the training has diverged; "
                "lower optim.lr, lengthen optim.warmup or set optim.clip_norm"
            )
        if number % self.config.train.log_every == 0 or number == self.plan.steps:
            self.log.write(number, scalars)
            self.log.write_events(number, {"train.images_per_second": self.progress.rate})
        self.progress.advance(number, scalars["train.loss"], scalars["train.accuracy"])

    def _validate(self, number: int, state: TrainState) -> float | None:
        """Returns the accuracy on the validation split, logged; None without one."""
        if self.validation is None:
            return None
        evaluation = self.evaluator("validation", state, self.validation)
        self.log.write(number, {"validation.loss": evaluation.loss, "validation.accuracy": evaluation.accuracy})
        self.progress.say(
            f"step {number}/{self.plan.steps}  validation: loss {evaluation.loss:.3f}  "
            f"accuracy {100 * evaluation.accuracy:.2f} %"
        )
        return evaluation.accuracy
