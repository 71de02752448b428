import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.errors import RunError
from convjax.models import MLP
from convjax.train import state as states
from convjax.train.config import OptimConfig
from convjax.train.metrics import calibration_error, summarise
from convjax.train.optim import optimizer
from convjax.train.schedule import schedule
from convjax.train.scores import Scores
from convjax.train.step import Step

CLASSES = tuple("abcdefgh")


def scores_of_random_logits() -> tuple[
    Scores, np.ndarray[tuple[int, ...], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int32]]
]:
    rng = np.random.default_rng(0)
    rate = schedule(OptimConfig(), steps=2, warmup=0)
    step = Step(
        MLP(num_classes=8, hidden=(4,), activation="tanh"),
        optimizer(OptimConfig(), rate),
        rate,
        Normalise((0.5,), (0.25,)),
    )
    state = states.init(step.model, step.optimizer, (5, 5, 1), 0)
    images = rng.integers(0, 256, (200, 5, 5, 1)).astype(np.uint8)
    labels = rng.integers(0, 8, 200).astype(np.int32)
    batch = Batch(jnp.asarray(images), jnp.asarray(labels), jnp.arange(200))
    logits = np.asarray(step.logits(state, batch.images), np.float64)
    return Scores(*map(np.asarray, step.evaluate(state, batch))), logits, labels


def test_an_evaluation_equals_scikit_learns() -> None:
    scores, logits, labels = scores_of_random_logits()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    evaluation = summarise("test", scores, labels, CLASSES)
    assert evaluation.examples == 200
    assert evaluation.loss == pytest.approx(log_loss(labels, probabilities, labels=range(8)), rel=1e-5)
    assert evaluation.accuracy == np.mean(logits.argmax(axis=1) == labels)
    assert evaluation.top5 == top_k_accuracy_score(labels, logits, k=5, labels=range(8))
    expected = confusion_matrix(labels, logits.argmax(axis=1), labels=range(8))
    assert evaluation.confusion == expected.tolist()
    recall = expected.diagonal() / expected.sum(axis=1)
    assert list(evaluation.per_class.values()) == pytest.approx(recall.tolist())


def test_a_class_without_an_example_has_no_accuracy() -> None:
    scores = Scores(np.zeros(2), np.array([0, 1]), np.ones(2), np.array([0, 1]))
    evaluation = summarise("test", scores, np.array([0, 0], np.int32), ("a", "b"))
    assert evaluation.per_class == {"a": 0.5, "b": None}


def test_logits_that_are_no_numbers_are_never_right() -> None:
    class Broken(MLP):
        def __call__(self, images: object, *, train: bool) -> object:  # type: ignore[override]
            return jnp.full((3, 6), jnp.nan)

    rate = schedule(OptimConfig(), steps=2, warmup=0)
    step = Step(Broken(num_classes=6), optimizer(OptimConfig(), rate), rate, Normalise((0.0,), (1.0,)))
    state = states.TrainState(jnp.zeros((), jnp.int32), {}, {}, (), {}, jnp.zeros((), jnp.int32), {})
    batch = Batch(jnp.zeros((3, 2, 2, 1), jnp.uint8), jnp.array([0, 1, 5]), jnp.arange(3))
    scores = Scores(*map(np.asarray, step.evaluate(state, batch)))
    assert (scores.rank >= 5).all()
    with pytest.raises(RunError, match="the loss on the test split is nan: the training has diverged"):
        summarise("test", scores, np.array([0, 1, 5], np.int32), tuple("abcdef"))


def test_tied_logits_are_won_by_the_first_class() -> None:
    class Tied(MLP):
        def __call__(self, images: object, *, train: bool) -> object:  # type: ignore[override]
            return jnp.zeros((3, 3))

    rate = schedule(OptimConfig(), steps=2, warmup=0)
    step = Step(Tied(num_classes=3), optimizer(OptimConfig(), rate), rate, Normalise((0.0,), (1.0,)))
    state = states.TrainState(jnp.zeros((), jnp.int32), {}, {}, (), {}, jnp.zeros((), jnp.int32), {})
    batch = Batch(jnp.zeros((3, 2, 2, 1), jnp.uint8), jnp.array([0, 1, 2]), jnp.arange(3))
    assert np.asarray(step.evaluate(state, batch).rank).tolist() == [0, 1, 2]


def test_calibration_error_by_hand() -> None:
    # Bin (0.6, 0.667]: two examples of confidence 0.65, one right. Bin (0.933, 1]: one of 0.95, right.
    confidence = np.array([0.65, 0.65, 0.95], np.float32)
    right = np.array([True, False, True])
    expected = 2 / 3 * abs(0.5 - 0.65) + 1 / 3 * abs(1 - 0.95)
    # The confidences are float32.
    assert calibration_error(confidence, right) == pytest.approx(expected, abs=1e-7)
    assert calibration_error(np.ones(4, np.float32), np.ones(4, bool)) == 0.0
