"""The batch that every side gets: noise and labels, the same everywhere."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers.cases import NETWORKS, Case

MEAN, DEVIATION = 0.5, 0.25
"""Of each channel, on the scale from 0 to 1."""


def raw(case: Case) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Returns uint8 images `[N, H, W, C]` and labels `[N]`."""
    network, rng = NETWORKS[case.network], np.random.default_rng(0)
    images = rng.integers(0, 256, (case.batch, *network.image)).astype(np.uint8)
    return images, rng.integers(0, network.classes, case.batch).astype(np.int32)


def normalised(case: Case) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The same with images as networks see them: float32."""
    images, labels = raw(case)
    return ((images / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)), labels
