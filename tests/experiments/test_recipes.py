"""The recipes: what their sources say of crops, length and decay, and that every parameter is known to decay or not."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from real_command import ROOT

from convjax.cli.experiment import parse_flags
from convjax.inspect import count
from convjax.models import create
from convjax.sweep import axes, trials
from convjax.train import experiment
from convjax.train.optim import decay_mask

IMAGENET = {
    # Images in training, at the test, and shorter side at the test before the crop; epochs, batch, rate.
    "resnet50": ((224,), 224, 256, 90, 256, 0.1),
    "densenet121": ((224,), 224, 256, 90, 256, 0.1),
    "efficientnet_b0": ((224,), 224, 256, 350, 4096, 0.256),
    "convnext_tiny": ((224,), 224, 256, 300, 4096, 4e-3),
    "resnet50_ffcv_16": ((160, 192), 256, 293, 16, 8 * 512, 1.7),
    "resnet50_ffcv_88": ((160, 192), 256, 293, 88, 8 * 512, 1.7),
    "resnet50_rsb_a1": ((224,), 224, 236, 600, 2064, 5e-3),
    "resnet50_rsb_a2": ((224,), 224, 236, 300, 2064, 5e-3),
    "resnet50_rsb_a3": ((160,), 224, 236, 100, 2048, 8e-3),
    "resnet50_torchvision_v2": ((176,), 224, 232, 600, 8 * 128, 0.5),
}
FILES = sorted((ROOT / "experiments").glob("*/*.py"))

# Two for each channel that is normalised: 26,560 in ResNet-50.
RESNET50, NORMS, HEAD_BIAS = 25_557_032, 2 * 26_560, 1000
DECAYING = {
    "resnet50": RESNET50 - NORMS,
    "resnet50_ffcv_16": RESNET50 - NORMS,
    "resnet50_torchvision_v2": RESNET50 - NORMS,
    "resnet50_rsb_a1": RESNET50 - NORMS - HEAD_BIAS,
    "densenet121": 7_978_856,
    "wide_resnet28_10": 36_479_194,
}
"""Parameters that decay: by the sources all, all but those of norms, or weights alone."""


@functools.lru_cache
def shapes(model: Any, side: int) -> Any:
    images = np.zeros((1, side, side, 3), np.float32)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]


def test_every_imagenet_recipe_is_known() -> None:
    assert {file.stem for file in FILES if file.parent.name == "imagenet"} == set(IMAGENET)


@pytest.mark.parametrize("name", IMAGENET)
def test_images_are_cut_as_the_source_cuts_them(name: str) -> None:
    config = experiment.load(ROOT / "experiments" / "imagenet" / f"{name}.py")
    sides, tested, shorter, epochs, batch, rate = IMAGENET[name]
    data, train = config.data, config.train
    assert data.resized_crop.area == (0.08, 1.0)
    assert data.image_size == tested
    assert round(tested / data.crop.share) == shorter
    assert (train.sizes or (data.image_size,)) == sides
    assert (train.length, train.batch_size) == (f"{epochs} epochs", batch)
    assert config.optim.lr == pytest.approx(rate)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_each_parameter_decays_or_does_not(file: Path) -> None:
    config = experiment.load(file)
    params = shapes(config.model, 64)
    mask = decay_mask(params, config.optim.decay, config.optim.no_decay)
    decaying = sum(leaf.size for leaf, does in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True) if does)
    expected = DECAYING.get(file.stem)
    assert expected is None or decaying == expected


def test_the_two_recipes_that_are_compared_share_network_data_and_length() -> None:
    file = ROOT / "experiments" / "recipe_gain.py"
    found = experiment.read(file)
    runs = trials.expand(axes.of_file(found), [], lambda flags: parse_flags("sweep", found, flags).config, found.keep)
    assert [(run.settings["recipe"], run.settings["seed"]) for run in runs] == [
        (recipe, seed) for recipe in ("plain", "modern") for seed in range(3)
    ]
    first = runs[0].config
    for run in runs:
        config = run.config
        assert (config.model, config.train.length, config.train.batch_size) == (
            first.model,
            first.train.length,
            first.train.batch_size,
        )
        assert (config.data.few, config.data.image_size) == (first.data.few, first.data.image_size)
        assert bool(config.data.augment.mix.on) == (run.settings["recipe"] == "modern")
    # 16 layers, four times as wide: convolutions 2,742,704, norms 3,616, classifier 2,570.
    assert first.model == create("wide_resnet16_8", width=4 * 16)
    assert count.parameters(first.model, (16, 16, 3)) == 2_748_890
