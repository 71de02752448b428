"""The training loop. There is one."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from convjax.data import order
from convjax.data.loader import Resident, take
from convjax.data.splits import Splits
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
        RunError: a checkpoint is damaged or cannot be saved.
    """
    run.check(config)
    data = load_data(config)
    step, shapes = build(config, data.info)
    plan = Plan.of(config, data.info)
    run.create(config, data.info, experiment)

    evaluator = Evaluator(step, data.info.class_names, config.train.batch_size)
    validation = Resident(data.splits["validation"]) if len(data.splits["validation"]) else None
    with Checkpoints(run.checkpoints) as checkpoints:
        done = checkpoints.latest_step()
        if done is None:
            state = states.init(config.model, step.optimizer, data.info.image, config.seed)
        else:
            state = checkpoints.restore(done, shapes)
        if (done or 0) < plan.steps:
            _train(config, run, plan, step, state, data, evaluator, validation, checkpoints)
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


def _train(
    config: Config,
    run: Run,
    plan: Plan,
    step: Step,
    state: TrainState,
    data: Splits,
    evaluator: Evaluator,
    validation: Resident | None,
    checkpoints: Checkpoints,
) -> None:
    """Runs the steps that are left, with evaluations and checkpoints in between."""
    split = Resident(data.splits["train"])
    batch_size, log_every = config.train.batch_size, config.train.log_every
    advance = jax.jit(lambda state, images, labels, ids: step.train(state, take(images, labels, ids)), donate_argnums=0)
    start = int(state.step)
    waiting: tuple[int, dict[str, jax.Array]] | None = None
    with (
        MetricsLog(run.path, step=start) as log,
        ProgressReport(step=start, steps=plan.steps, batch_size=batch_size) as progress,
    ):

        def write(waiting: tuple[int, dict[str, jax.Array]]) -> None:
            number, metrics = waiting
            scalars = {f"train.{name}": float(np.float32(value)) for name, value in metrics.items()}
            log.write(number, scalars)
            log.write_events(number, {"train.images_per_second": progress.rate})
            progress.metrics(scalars["train.loss"], scalars["train.accuracy"])

        if start:
            progress.say(f"going on from step {start} of {plan.steps}")
        for number in range(start + 1, plan.steps + 1):
            ids = order.batch_ids(config.seed, number - 1, batch_size, len(split)).astype(np.int32)
            state, metrics = advance(state, split.images, split.labels, ids)
            # Fetched one step late: the device has work while the host waits for these numbers.
            if waiting is not None:
                write(waiting)
                waiting = None
            if number % log_every == 0 or number == plan.steps:
                waiting = number, metrics
            progress.advance(number)
            if number % plan.evaluate_every == 0 or number == plan.steps:
                if waiting is not None:
                    write(waiting)
                    waiting = None
                accuracy = None
                if validation is not None:
                    evaluation = evaluator("validation", state, validation)
                    accuracy = evaluation.accuracy
                    log.write(number, {"validation.loss": evaluation.loss, "validation.accuracy": accuracy})
                    progress.say(
                        f"step {number}/{plan.steps}  validation: loss {evaluation.loss:.3f}  "
                        f"accuracy {100 * accuracy:.2f} %"
                    )
                checkpoints.save(state, accuracy)
