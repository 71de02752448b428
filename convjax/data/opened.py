"""A data set whose images are still on disk."""

import dataclasses
from collections.abc import Mapping

import PIL
import simplejpeg

from convjax.data import order
from convjax.data.records import Records

_TEST_SHARE = 0.2
"""Share of a set without a test split that becomes one."""
_DECODING = 2
"""Counts up when the same files come to be decoded to other pixels."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A data set whose images are still on disk.

    Attributes:
        name: as it was asked for.
        version: its version.
        class_names: name of each class.
        train: the train split.
        validation: the validation split, where the set has one beside its test split.
        test: the test split.
        identity: stands for what the set's files hold, as far as names, sizes and times tell, and for how they are
            decoded.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    train: Records
    validation: Records | None
    test: Records
    identity: str

    @classmethod
    def of(
        cls, name: str, version: str, class_names: tuple[str, ...], splits: Mapping[str, Records], identity: str
    ) -> "Opened":
        """Returns the set of these splits, among them train.

        Its test split is what is called test, else validation, else a fifth of train by a fixed rule.
        """
        train, validation, test = splits["train"], splits.get("validation"), splits.get("test")
        if test is None:
            test, validation = validation, None
        if test is None:
            kept, cut = order.cut(len(train), _TEST_SHARE)
            train, test = train.part(kept), train.part(cut)
        decoders = f"Pillow {PIL.__version__} simplejpeg {simplejpeg.__version__} {_DECODING}"
        return cls(name, version, class_names, train, validation, test, f"{identity} {decoders}")
