"""Operations, their ranges and AutoAugment's tables against torchvision."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convjax.data import operations, policies
from convjax.data.autoaugment import POLICIES
from convjax.data.operations import Name

pytestmark = pytest.mark.certify

NAMES: dict[str, Name] = {
    "Identity": "identity",
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "translate_x",
    "TranslateY": "translate_y",
    "Rotate": "rotate",
    "Brightness": "brightness",
    "Color": "colour",
    "Contrast": "contrast",
    "Sharpness": "sharpness",
    "Posterize": "posterize",
    "Solarize": "solarize",
    "AutoContrast": "auto_contrast",
    "Equalize": "equalize",
    "Invert": "invert",
}
IMAGE = np.random.default_rng(0).integers(20, 230, (24, 31, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return importlib.import_module("torchvision.transforms.autoaugment")


@pytest.fixture(scope="module")
def space(theirs: Any) -> Any:
    """The magnitudes of TrivialAugment, which reach farthest."""
    return theirs.TrivialAugmentWide()._augmentation_space(31)


def test_every_operation_is_torchvisions_at_every_magnitude(theirs: Any, space: Any) -> None:
    @jax.jit
    def performed(index: jax.Array, magnitude: jax.Array) -> jax.Array:
        image = jnp.asarray(IMAGE)
        return operations.apply(operations.chosen(operations.NAMES, index, image, magnitude), image)

    nearest = importlib.import_module("torchvision.transforms").InterpolationMode.NEAREST
    for name, (magnitudes, signed) in {**space, "Invert": (np.zeros(()), False)}.items():
        for magnitude in np.atleast_1d(np.asarray(magnitudes, np.float64)):
            for sign in (1, -1) if signed else (1,):
                image = Image.fromarray(IMAGE)
                expected = np.asarray(theirs._apply_op(image, name, float(sign * magnitude), nearest, None))
                found = np.asarray(performed(operations.NAMES.index(NAMES[name]), np.float32(sign * magnitude)))
                if name == "Rotate":
                    # Angles are float64 there, float32 here: pixels that come from the edge of another may differ.
                    assert (found != expected).any(-1).mean() <= 0.005, magnitude
                else:
                    # A product that is fused with a sum is rounded once, not twice, before it is truncated.
                    assert np.abs(found.astype(int) - expected).max() <= 1, (name, magnitude)


@pytest.mark.parametrize("kind", ["wide", "random", "auto"])
def test_magnitudes_are_torchvisions(theirs: Any, space: Any, kind: str) -> None:
    height, width = IMAGE.shape[:2]
    bins = {"wide": 31, "random": 31, "auto": 10}[kind]
    expected = {
        "wide": lambda: space,
        "random": lambda: theirs.RandAugment()._augmentation_space(31, (height, width)),
        "auto": lambda: theirs.AutoAugment()._augmentation_space(10, (height, width)),
    }[kind]()
    chosen = policies._WIDE if kind == "wide" else policies._LARGEST
    names = tuple(NAMES[name] for name in expected)
    if kind != "auto":
        assert set(names) == set(policies.RANDOM)
    assert {NAMES[name] for name, (_, signed) in expected.items() if signed} == policies.SIGNED
    for step in range(bins):
        found = policies.magnitudes(jnp.asarray(IMAGE), jnp.float32(step / (bins - 1)), chosen, names)
        for name, ours in zip(expected, found, strict=True):
            magnitudes = np.asarray(expected[name][0])
            if magnitudes.ndim:
                assert float(ours) == pytest.approx(float(magnitudes[step]), rel=1e-5, abs=1e-4), (name, step)


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_autoaugments_tables_are_torchvisions(theirs: Any, name: str) -> None:
    expected = theirs.AutoAugment(theirs.AutoAugmentPolicy(name)).policies
    found = [[(op, p, m) for op, p, m in pair] for pair in POLICIES[name]]
    assert found == [[(NAMES[op], p, m or 0) for op, p, m in pair] for pair in expected]
