"""Every named network against PyTorch's, from what PyTorch computed when `make certify` recorded it."""

from typing import Any

import certificates
import drawn
import jax
import numpy as np
import pytest
from certificates import DIRECTORY, REPLAYED, Certificate, apart, floors, sketch

from convjax.interop.torch_names import names_and_shapes
from convjax.models import MODELS, create

BY_HAND = {"mlp", "lenet5"}
"""No library has them: tests/parity/test_parity_models.py writes them down in PyTorch."""
LOGITS = 1e-4
ROUNDINGS = 8
"""How many times PyTorch's own rounding to float32 ours may be: other orders of the same sums."""
LEAST = 1e-5
"""What a difference may be where PyTorch's rounding happens to be less: ten times the usual one."""
OTHER_MOMENTUM = {f"efficientnet_{n}" for n in ("b0", "b1", "b2", "b3", "b4", *(f"lite{i}" for i in range(5)))}
"""Whose running statistics move by 0.01 a step, as in the paper, where the library has PyTorch's 0.1."""

recorded = [name for name in MODELS if name not in BY_HAND]
names = [pytest.param(name, marks=[] if name in REPLAYED else [pytest.mark.slow]) for name in recorded]


def compare(certificate: Certificate, found: dict[str, Any], kinds: tuple[str, ...], enlarged: float = 1) -> None:
    """Makes sure that values agree.

    Args:
        certificate: what the library found.
        found: what we did.
        kinds: beginnings of the names of values to compare.
        enlarged: how many times our statistics' rounding is the library's.
    """
    floor = floors({key: value.norm for key, value in certificate.values.items()})
    expected = {key: value for key, value in certificate.values.items() if key.startswith(kinds)}
    assert expected
    rounding: dict[str, float] = {}  # PyTorch's own in one array is a single draw: the most in any of a kind
    for key, value in expected.items():
        kind = key.split("/")[0]
        rounding[kind] = max(rounding.get(kind, 0.0), value.rounding * (enlarged if kind == "statistics" else 1))
    off = {}
    for key, value in expected.items():
        bound = max(LEAST, ROUNDINGS * rounding[key.split("/")[0]])
        difference = apart(sketch(key, found[key]), value.sketch, floor[key])
        lengths = abs(float(np.linalg.norm(found[key].astype(np.float64))) - value.norm) / floor[key]
        if not max(difference, lengths) <= bound:
            off[key] = (difference, lengths, bound)
    assert not off


@pytest.mark.parametrize("name", names)
def test_logits_and_features_are_the_librarys(name: str) -> None:
    certificate = Certificate.read(name)
    levels = {key: norm.level for key, norm in certificate.norms.items()}
    state_dict, batch = drawn.weights(name, levels), drawn.evaluated_images(name)
    assert drawn.digest(state_dict, batch) == certificate.digests[0]
    found = certificates.evaluate(name, state_dict, batch, certificate.values)
    largest = np.abs(certificate.logits).max()
    np.testing.assert_allclose(found["logits"], certificate.logits, rtol=0, atol=LOGITS * largest)
    compare(certificate, found, ("logits", "features/"))


@pytest.mark.parametrize("name", names)
def test_loss_gradients_and_statistics_are_the_librarys(name: str) -> None:
    certificate = Certificate.read(name)
    state_dict, batch = drawn.weights(name), drawn.trained_images(name, certificate.seed)
    assert drawn.digest(state_dict, batch) == certificate.digests[1]
    found = certificates.train(name, state_dict, batch, certificate.norms)
    # Both keep running statistics in float32, and to tell the batch's from them is to divide by the momentum.
    ours = certificates.momentum(name)
    theirs = max((norm.momentum for norm in certificate.norms.values()), default=ours)
    compare(certificate, found, ("loss", "gradients/", "statistics/"), enlarged=theirs / ours)


@pytest.mark.parametrize("name", recorded)
def test_every_parameter_norm_and_stage_is_certified(name: str) -> None:
    certificate = Certificate.read(name)
    assert certificate.logits.shape == (drawn.BATCH, MODELS[name].module.num_classes)
    assert len([key for key in certificate.values if key.startswith("features/")]) >= 3
    trained = {key.removeprefix("gradients/") for key in certificate.values if key.startswith("gradients/")}
    moved = {key.removeprefix("statistics/") for key in certificate.values if key.startswith("statistics/")}
    fixed = {key for key in names_and_shapes(name) if name == "airbench94" and (".norm" in key or key == "0.weight")}
    assert trained | moved == names_and_shapes(name).keys() - {key for key in fixed if key.endswith("weight")}
    assert moved == {f"{norm}.{leaf}" for norm in certificate.norms for leaf in ("running_mean", "running_var")}
    assert all(np.isfinite(value.sketch).all() and np.any(value.sketch) for value in certificate.values.values())


@pytest.mark.parametrize("name", recorded)
def test_running_statistics_move_as_the_librarys(name: str) -> None:
    momenta = {norm.momentum for norm in Certificate.read(name).norms.values()}
    expected = 0.1 if name in OTHER_MOMENTUM else certificates.momentum(name)
    assert all(m == pytest.approx(expected) for m in momenta)


def test_the_running_variance_is_the_biased_one_and_pytorchs_is_not() -> None:
    # Ours: 0.9 * before + 0.1 * var, var = sum (x - mean)^2 / n; PyTorch's: the same with n - 1 for n.
    model: Any = create("resnet20", depth=8)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = model.init(jax.random.key(1), images, train=False)
    _, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    after = np.asarray(updated["batch_stats"]["stem"]["norm"]["var"])
    kernel = variables["params"]["stem"]["conv"]["kernel"]
    given = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    values = np.asarray(given, np.float64).reshape(-1, 16)
    n = 2 * 8 * 8
    assert len(values) == n
    np.testing.assert_allclose(after, 0.9 + 0.1 * values.var(axis=0), rtol=1e-6)
    batchs = certificates.of_batch(np.ones(16), after, 0.1)
    np.testing.assert_allclose(certificates.unbiased(batchs, n), values.var(axis=0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(batchs * n / (n - 1), values.var(axis=0, ddof=1), rtol=1e-5)


def test_certificates_are_there_and_small() -> None:
    files = {file.stem: file.stat().st_size for file in DIRECTORY.iterdir()}
    assert files.keys() == set(recorded)
    assert sum(files.values()) < 5e6


def test_random_bits_are_philoxs() -> None:
    # Random123's known answer for philox4x64-10 with a counter and key of zeros; NumPy counts up first.
    raw = np.random.Philox(key=0, counter=2**256 - 1).random_raw(4)
    assert [hex(x) for x in raw] == [
        "0x16554d9eca36314c",
        "0xdb20fe9d672d0fdc",
        "0xd7e772cee186176b",
        "0x7e68b68aec7ba23b",
    ]
    numbers = drawn.uniform("any", (100_000,), -1, 3)
    assert numbers.dtype == np.float32
    assert numbers.min() >= -1
    assert numbers.max() < 3
    assert abs(numbers.mean() - 1) < 0.02  # deviation 1.155 / sqrt(100,000) = 0.004
    assert abs(numbers.var() - 16 / 12) < 0.02


def test_a_sketch_is_linear_and_as_long_as_its_array_on_average() -> None:
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((2, 1000))
    together = sketch("key", arrays[0] - 3 * arrays[1])
    np.testing.assert_allclose(together, sketch("key", arrays[0]) - 3 * sketch("key", arrays[1]), atol=1e-9)
    lengths = [np.sum(sketch(f"key {i}", arrays[0]) ** 2) for i in range(500)]
    assert np.mean(lengths) == pytest.approx(np.sum(arrays[0] ** 2), rel=0.15)  # deviation 0.7 / sqrt(500) = 0.03
