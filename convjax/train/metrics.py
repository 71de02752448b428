"""From scores of single examples to the numbers of an evaluation.

Each example is scored by itself, so that the result depends on neither the batch size nor the number of
devices; sums are taken here, once, in float64.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from convjax.errors import RunError
from convjax.train.scores import Scores

CALIBRATION_BINS = 15


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Attributes:
    split: name of the split.
    examples: number of examples.
    loss: mean cross-entropy in nats.
    accuracy: share of examples whose largest logit is the true class's.
    top5: share of examples whose true class is among the five largest logits.
    calibration_error: expected calibration error, see `calibration_error`.
    per_class: accuracy by class name; None for a class without an example.
    confusion: counts `[true class][predicted class]`.
    """

    split: str
    examples: int
    loss: float
    accuracy: float
    top5: float
    calibration_error: float
    per_class: dict[str, float | None]
    confusion: list[list[int]]


def summarise(split: str, scores: Scores, labels: NDArray[np.int32], class_names: tuple[str, ...]) -> Evaluation:
    """Returns the evaluation of a whole split from the scores of all its examples.

    Raises:
        RunError: the loss is not finite; nothing else would be a number either.
    """
    loss = float(np.mean(scores.loss, dtype=np.float64))
    if not math.isfinite(loss):
        raise RunError(f"the loss on the {split} split is {loss}: the training has diverged")
    classes = len(class_names)
    prediction, rank = np.asarray(scores.prediction), np.asarray(scores.rank)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, prediction), 1)
    counts = confusion.sum(axis=1)
    right = rank == 0
    return Evaluation(
        split=split,
        examples=len(labels),
        loss=loss,
        accuracy=float(np.mean(right)),
        top5=float(np.mean(rank < 5)),
        calibration_error=calibration_error(np.asarray(scores.confidence), right),
        per_class={
            name: float(confusion[i, i] / counts[i]) if counts[i] else None for i, name in enumerate(class_names)
        },
        confusion=confusion.tolist(),
    )


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Returns the expected calibration error over 15 bins of equal width.

        sum over bins b of |b| / N * |accuracy(b) - mean confidence(b)|,  b = ((k - 1) / 15, k / 15]

    Source: Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, equation 3.
    """
    _, hits, sums = reliability(confidence, right)
    return float(np.abs(hits - sums).sum() / len(confidence))


def reliability(
    confidence: NDArray[np.float32], right: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns of each of the 15 bins of `calibration_error`: examples, right answers, sum of confidences."""
    exact = confidence.astype(np.float64)
    bins = np.clip(np.ceil(exact * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1).astype(np.int64)
    count, hits, sums = (np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, right, exact))
    return count.astype(np.int64), hits.astype(np.float64), sums.astype(np.float64)
