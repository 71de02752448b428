"""In what two runs differ: configuration, data, weights that they began with, code, environment, result."""

import dataclasses
import difflib
from typing import Any

from convjax.train.flat import Changes, differences
from convjax.train.run import Run

EXPERIMENT = "experiment.py"

_FLEETING = {"time", "process", "resumed", "directory"}
"""What is another in any two runs."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Attributes:
    configuration: fields of config.json that differ.
    data: fields of data.json that differ.
    weights: fields of init.json that differ, but for where the weights lay.
    code: fields that tell which code ran and differ, but for the differences to a commit.
    sources: unified diffs of the experiment files and of the uncommitted changes, by their names.
    environment: what else differs in environment.json.
    result: what differs in result.json, where both runs have one.
    """

    configuration: Changes
    data: Changes
    weights: Changes
    code: Changes
    sources: dict[str, str]
    environment: Changes
    result: Changes


def diff(first: Run, second: Run) -> Difference:
    """Returns in what two runs differ.

    Raises:
        UsageError: one is no run.
        RunError: a file of theirs is damaged.
    """
    runs = (first, second)
    configurations = [run.read_raw_config() for run in runs]
    environments = [run.read_json("environment.json") for run in runs]
    codes = [environment.pop("code") for environment in environments]
    for environment in environments:
        environment["went on under"] = [entry["numerical"] for entry in environment["resumed"]]
        for name in _FLEETING:
            environment.pop(name, None)
    sources = {}
    for part in ("convjax_git", "experiment_git"):
        texts = [(code[part] or {}).pop("diff", "") for code in codes]
        sources[f"uncommitted changes, {part.removesuffix('_git')}"] = _unified(texts, runs)
    sources[EXPERIMENT] = _unified([run.experiment() for run in runs], runs)
    results = [run.read_json("result.json") if (run.path / "result.json").is_file() else None for run in runs]
    return Difference(
        configuration=differences(*configurations),
        data=differences(*(run.read_json("data.json") for run in runs)),
        weights=differences(*map(_weights, runs)),
        code=differences(*codes),
        sources={name: text for name, text in sources.items() if text},
        environment=differences(*environments),
        result=differences(*(_headline(result) for result in results)),
    )


def _weights(run: Run) -> dict[str, Any]:
    """Returns what a run knows of the weights that it began with; empty where it was initialised."""
    known = run.read_json(run.init.name) if run.init.is_file() else {}
    return {key: value for key, value in known.items() if key != "path"}


def _unified(texts: list[str], runs: tuple[Run, Run]) -> str:
    old, new = (text.splitlines(keepends=True) for text in texts)
    return "".join(difflib.unified_diff(old, new, str(runs[0].path), str(runs[1].path)))


def _headline(result: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the numbers of a result that are worth comparing one by one."""
    if result is None:
        return {}
    splits = {name: result[name] for name in ("validation", "test") if result[name] is not None}
    numbers = {f"{name}.{key}": split[key] for name, split in splits.items() for key in ("accuracy", "loss")}
    return {"checkpoint": result["checkpoint"], **numbers}
