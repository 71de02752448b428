"""How a network's answers change when images are shifted by a few pixels."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from convjax.data import loader
from convjax.data.sources import Split
from convjax.errors import UsageError
from convjax.train.evaluate import Evaluator, Trained

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
"""Of shifts, as (rows, columns)."""


@dataclasses.dataclass(frozen=True)
class Shifted:
    """What a network makes of images that are shifted to the right, the left, downwards and upwards.

    Attributes:
        pixels: by how many pixels.
        accuracy: share of right answers, the mean over the four directions.
        agreement: share of answers, right or wrong, that are those to the same image where it was.
    """

    pixels: int
    accuracy: float
    agreement: float


def shifted(images: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Returns images `[N, H, W, C]` moved down and to the right, up and to the left where negative.

    What comes into view is 0.
    """
    height, width = images.shape[1:3]
    moved = np.zeros_like(images)
    here = [slice(max(0, by), size + min(0, by)) for by, size in ((rows, height), (columns, width))]
    there = [slice(max(0, -by), size + min(0, -by)) for by, size in ((rows, height), (columns, width))]
    moved[:, here[0], here[1]] = images[:, there[0], there[1]]
    return moved


def curve(network: Trained, split: Split, most: int) -> list[Shifted]:
    """Returns accuracy and agreement at shifts of 0 to `most` pixels.

    Args:
        network: the network.
        split: its examples.
        most: the largest shift, below the images' sides.

    Raises:
        UsageError: nothing would be left of the images.
    """
    images = np.asarray(split.images)
    if not 0 <= most < min(images.shape[1:3]):
        raise UsageError(
            f"--shift is {most}: it must be from 0 to {min(images.shape[1:3]) - 1}, below the images' sides"
        )

    batch_size = network.config.train.batch_size
    evaluator = Evaluator(network.step, network.info.class_names, batch_size, network.placement)

    def answers(moved: NDArray[np.uint8]) -> NDArray[np.int32]:
        feed = loader.feed("resident", Split(moved, split.labels), network.placement)
        return np.asarray(evaluator.scores(network.state, feed).prediction)

    start = answers(images)
    found = [Shifted(0, float((start == split.labels).mean()), 1.0)]
    for pixels in range(1, most + 1):
        moved = np.stack([answers(shifted(images, pixels * rows, pixels * columns)) for rows, columns in DIRECTIONS])
        found.append(Shifted(pixels, float((moved == split.labels).mean()), float((moved == start).mean())))
    return found
