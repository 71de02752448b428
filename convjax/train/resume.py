"""What may have changed in an experiment when its run goes on: nothing that decides on its numbers."""

import ast
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax.data.splits import DataInfo
from convjax.digest import digest
from convjax.errors import UsageError
from convjax.train import experiment
from convjax.train.config import Config
from convjax.train.config_json import from_json, to_json
from convjax.train.flat import Changes, differences, flatten
from convjax.train.plan import Plan
from convjax.train.run import Run
from convjax.train.schedule import schedule

NEUTRAL = {
    "data.directory",  # the content of the data is compared by itself
    "data.broken_limit",  # so are the images that are left
    "train.init_from",  # and so are the weights, where there are some before and now
    "train.checkpoint_every",
    "train.keep",
    "train.log_every",
    "train.on_nonfinite",  # decides whether a run stops, not on the steps before
    "train.nonfinite_limit",
    # These change no more than the last bits.
    "parallel.mode",
    "parallel.devices",
    "parallel.shard_optimizer",
    "parallel.coordinator",
    "parallel.processes",
    # These change no number at all.
    "wandb.mode",
    "wandb.project",
    "wandb.entity",
}
"""Fields that may change at any time."""


def check(config: Config, run: Run, file: Path | None) -> Changes:
    """Returns in what an experiment differs from its run, where that leaves the numbers as they are.

    A longer run is one of these differences, if it would have done the same steps and evaluations so far.

    Args:
        config: the experiment.
        run: its run, which exists.
        file: the file that defines the experiment, if one does.

    Raises:
        UsageError: it differs in what decides on the numbers; the message lists the fields.
    """
    old = run.read_json("config.json")
    _check_code(old["model"]["type"], run, file)
    changes = differences(old, to_json(config))
    changes.pop("parallel.process_id", None)  # each process has its own
    refused = {key: change for key, change in changes.items() if key not in NEUTRAL}
    if None in changes.get("train.init_from", ()):
        refused["train.init_from"] = changes["train.init_from"]
    if set(refused) == {"train.length"}:
        reason = _other_length(from_json(old), config, run)
        if reason is None:
            return changes
        raise UsageError(f"{run.path}: {_line('train.length', refused['train.length'])}: {reason}")
    if refused:
        lines = "\n".join(f"  {_line(key, change)}" for key, change in refused.items())
        raise UsageError(f"{run.path} holds a run of another configuration; take another --workdir:\n{lines}")
    return changes


def science(config: Config, data: DataInfo, file: Path | None, weights: str) -> dict[str, str]:
    """Returns what decides on the numbers of an experiment: all processes of a run must be given the same.

    Args:
        config: the experiment.
        data: what is known of its data.
        file: the file that defines the experiment, if one does.
        weights: digest of those that it starts from; empty without.
    """
    own = {"data.directory", "train.init_from", "parallel.coordinator", "parallel.process_id"}
    fields = {key: value for key, value in flatten(to_json(config)).items() if key not in own}
    return {
        "configuration": repr(fields),
        "code of the experiment": "" if file is None else _code(file),
        "data": repr(data),
        "weights": weights,
    }


def identity(config: Config, data: DataInfo, file: Path) -> str:
    """Returns a digest of what decides on a run's numbers: two experiments that share it need but one run.

    Args:
        config: the experiment.
        data: what is known of its data.
        file: the file that defines the experiment.
    """
    json = to_json(config)
    # Weights are known by their place before they are read, and by their content in the run that has read them.
    neutral = NEUTRAL - {"train.init_from"}
    fields = {key: value for key, value in flatten(json).items() if key not in neutral}
    code = _code(file) if _defined_there(json["model"]["type"]) else ""
    return digest(repr((sorted(fields.items()), code, data)).encode())


def _check_code(model: str, run: Run, file: Path | None) -> None:
    """Makes sure that the code of a model which the experiment's file defines is that of the run."""
    copy = run.path / "experiment.py"
    if _defined_there(model) and file is not None and copy.is_file() and _code(copy) != _code(file):
        raise UsageError(
            f"{run.path} holds a run of other code: {file}, which defines the model, is no longer what {copy} is; "
            "take another --workdir, or bring the code back"
        )


def _defined_there(model: str) -> bool:
    """Says whether the experiment's file defines the model's class: else its code has no part in the numbers."""
    return model.startswith(f"{experiment.MODULE}:")


def _line(key: str, change: tuple[Any, Any]) -> str:
    return f"{key}: {change[0]!r} there, {change[1]!r} now"


def _other_length(old: Config, new: Config, run: Run) -> str | None:
    """Returns why a run cannot go on to another length, None if it can."""
    info = run.read_info()
    before, after = Plan.of(old, info), Plan.of(new, info)
    done = run.latest_step()
    if after.steps < done:
        return f"the run has done {done} steps, more than the {after.steps} it would have; take another --workdir"

    def rates(config: Config, plan: Plan) -> Any:
        rate = schedule(config.optim, steps=plan.steps, warmup=plan.warmup)
        return np.asarray(jax.vmap(lambda step: jnp.asarray(rate(step), jnp.float32))(jnp.arange(done)))

    if before.sizes_at != after.sizes_at and min((*before.sizes_at, *after.sizes_at)) < done:
        return "train.sizes_at then means other steps than those already done; take another --workdir"
    if done and not np.array_equal(rates(old, before), rates(new, after)):
        return (
            f"optim.schedule {new.optim.schedule} depends on the length, so that the steps done so far would have "
            "been others; take another --workdir"
        )
    evaluated = [[s for s in range(1, done + 1) if plan.evaluates_after(s)] for plan in (before, after)]
    if evaluated[0] != evaluated[1]:
        return "the evaluations so far would have been others; take another --workdir"
    return None


def _code(file: Path) -> str:
    """Returns what a file of Python says, without comments, spaces, line numbers, its docstring, and what sweeps vary.

    The configuration is compared by its fields.
    """
    try:
        module = ast.parse(file.read_text())
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{file} is no longer Python: {error}") from error

    def counts(node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            return not {ast.unparse(target) for target in node.targets} <= experiment.SWEPT
        if isinstance(node, ast.FunctionDef | ast.AnnAssign):
            name = ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.name
            return name not in experiment.SWEPT
        return not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))

    return "\n".join(ast.dump(node) for node in module.body if counts(node))
