"""The training loop. There is one."""

import contextlib
import dataclasses
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import jax

from convjax.ops import cpu
from convjax.train import failures, freeze, processes, resume, wandb_log
from convjax.train.checkpoint import Checkpoints
from convjax.train.config import Config
from convjax.train.config_json import to_json
from convjax.train.interrupts import Interrupts
from convjax.train.log import MetricsLog
from convjax.train.peers import Peers
from convjax.train.plan import Plan, draws
from convjax.train.prepare import Equipment, Prepared, equip, prepare
from convjax.train.progress import ProgressReport
from convjax.train.result import Result
from convjax.train.run import Run
from convjax.train.steps import Steps
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
            yield from Steps(
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
