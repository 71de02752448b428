"""The experiment files of the findings: what they claim of their networks, and that each can be trained."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from real_command import ROOT

from convjax.cli.experiment import parse_flags
from convjax.data import order
from convjax.data.loader import Batch
from convjax.inspect import count, health
from convjax.models import MLP
from convjax.sweep import axes, trials
from convjax.train import evaluate, experiment
from convjax.train.config import Config, DataConfig, TrainConfig
from convjax.train.config_json import from_json, to_json
from convjax.train.parallel import Placement

FILES = sorted((ROOT / "experiments").glob("findings_*.py"))
FAST = {"xla_backend_optimization_level": 0}


def read(name: str) -> Any:
    return experiment.read(ROOT / "experiments" / f"findings_{name}.py")


def counts(name: str, image: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
    models = read(name).axes["model"]
    return {arm: (count.parameters(m, image), count.multiply_accumulates(m, image)) for arm, m in models.items()}


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_two_steps_of_each_file(file: Path) -> None:
    """On synthetic images of the size that the file's have, with few of them."""
    config = experiment.load(file)
    size = config.data.image_size or {"fashion_mnist": 28, "cifar10_jpeg": 32}[config.data.name]
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, name="synthetic", image_size=size, examples=64),
        train=dataclasses.replace(config.train, batch_size=8),
    )
    data = evaluate.load_data(config)
    step, _ = evaluate.build(config, data.info, Placement.single())
    state = jax.jit(lambda: evaluate.initial(config, step, data.info), compiler_options=FAST)()
    advance = jax.jit(step.train, compiler_options=FAST)
    train = data.splits["train"]
    for ids in (np.arange(8), np.arange(8, 16)):
        before = state
        state, metrics = advance(
            state, Batch(*map(jnp.asarray, (train.images[ids], train.labels[ids], ids.astype(np.int32))))
        )
        assert np.isfinite(metrics["loss"])
    assert int(state.step) == 2
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before.params, state.params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_arm_has_three_seeds_and_survives_json(file: Path) -> None:
    found = experiment.read(file)
    combinations = trials.expand(
        axes.of_file(found), [], lambda flags: parse_flags("sweep", found, flags).config, found.keep
    )
    seeds: dict[Any, set[int]] = {}
    for trial in combinations:
        rest = tuple((name, value) for name, value in trial.settings.items() if name != "seed")
        seeds.setdefault(rest, set()).add(trial.settings["seed"])
        assert from_json(json.loads(json.dumps(to_json(trial.config)))) == trial.config
    assert all(len(each) >= 3 for each in seeds.values())


def test_networks_on_pixels_are_as_large_or_as_costly_as_they_are_called() -> None:
    found = counts("pixels", (32, 32, 3))
    parameters, products = found["mlp"]
    assert found["convnet_of_equal_parameters"][0] == pytest.approx(parameters, rel=0.005)
    assert found["convnet_of_equal_products"][1] == pytest.approx(products, rel=0.005)
    # One weight a pixel and channel for each of 64 units, and the classifier's.
    assert products == 32 * 32 * 3 * 64 + 64 * 10


def test_networks_with_and_without_neighbours_have_equal_parameters() -> None:
    parameters = [found[0] for found in counts("neighbours", (28, 28, 1)).values()]
    assert max(parameters) < 1.01 * min(parameters)


def test_networks_of_all_kernels_have_nearly_equal_parameters() -> None:
    found = [found[0] for found in counts("kernels", (16, 16, 3)).values()]
    assert max(found) < 1.08 * min(found)


def test_networks_are_as_deep_as_they_are_called() -> None:
    for name, model in read("depth").axes["model"].items():
        shapes = jax.eval_shape(lambda m=model: m.init(jax.random.key(0), np.zeros((1, 16, 16, 3)), train=False))
        weights = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes["params"]) if "kernel" in str(path)]
        assert len(weights) == int(name.rpartition("_")[2]), name


def test_gradients_at_the_start_are_those_of_the_plain_formula() -> None:
    """Backpropagation through one hidden layer by hand, on the run's first batch."""
    config = Config(
        MLP(hidden=(5,), norm="none"), DataConfig("digits", validation=0.0), train=TrainConfig(batch_size=32)
    )
    data = evaluate.load_data(config)
    found = health.gradients_at_start(config, data)
    step, _ = evaluate.build(config, data.info, Placement.single())
    params = jax.device_get(evaluate.initial(config, step, data.info).params)
    train = data.splits["train"]
    ids = order.batch_ids(config.seed, 0, 32, len(train))
    pixels = np.asarray(step.normalise(jnp.asarray(train.images[ids])), np.float64).reshape(32, 64)
    hidden = np.maximum(pixels @ params["dense1"]["kernel"], 0)
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    error = (scipy.special.softmax(logits, axis=1) - np.eye(10)[train.labels[ids]]) / 32
    back = error @ params["head"]["kernel"].T * (hidden > 0)
    head = np.hypot(np.linalg.norm(hidden.T @ error), np.linalg.norm(error.sum(axis=0)))
    expected = {"dense1": np.linalg.norm(pixels.T @ back), "head": head, "norm1": np.linalg.norm(back.sum(axis=0))}
    assert found == pytest.approx(expected, rel=1e-4)
