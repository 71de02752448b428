"""Few examples of each class: a part of a data set to learn from, or to be measured on."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from convjax.data import order
from convjax.data.records import PIECE
from convjax.errors import UsageError, require


@dataclasses.dataclass(frozen=True)
class Few:
    """How many examples of each class are kept; which ones is fixed, the same for every run and seed."""

    train: int | None = None
    """Examples of each class in the train split, of which the validation split is cut; None keeps all."""
    test: int | None = None
    """Examples of each class in the test split; None keeps all."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            count = getattr(self, field.name)
            require(count is None or count >= 1, f"data.few.{field.name}", count, "at least 1, or None to keep all")

    def of(
        self,
        split: str,
        examples: int,
        class_names: Sequence[str],
        labels: Callable[[NDArray[np.int64]], NDArray[np.int32]],
    ) -> NDArray[np.int64]:
        """Returns which examples of a split are kept, in rising order.

        Those of each class that come first in one fixed permutation of the split: so fewer are a part of more.

        Args:
            split: train or test.
            examples: how many the split has.
            class_names: name of each class.
            labels: returns the labels of some examples; asked for no more than is needed.

        Raises:
            UsageError: a class has fewer.
        """
        count: int | None = getattr(self, split)
        if count is None:
            return np.arange(examples)
        kept: list[int] = []
        found = np.zeros(len(class_names), np.int64)
        permutation = order.epoch_order(0xFE3, 0, examples)
        for start in range(0, examples, PIECE):
            piece = permutation[start : start + PIECE]
            for number, label in zip(piece.tolist(), labels(piece).tolist(), strict=True):
                if found[label] < count:
                    found[label] += 1
                    kept.append(number)
            if (found == count).all():
                return np.sort(kept)
        least = int(found.argmin())
        raise UsageError(
            f"data.few.{split} is {count}: class {class_names[least]!r} has {found[least]} examples in the "
            f"{split} split"
        )


ALL = Few()
"""Keeps every example."""
