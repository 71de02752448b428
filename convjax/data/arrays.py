"""Arrays by name in a file of NumPy's, which has a checksum of each: what is known of data, for the next time."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convjax.files import written_apart

Arrays: TypeAlias = dict[str, NDArray[Any]]


def read(file: Path) -> Arrays | None:
    """Returns what `write` wrote; None where that is missing or damaged."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write(file: Path, arrays: Arrays) -> None:
    """Writes arrays, whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    with written_apart(file) as opened:
        np.savez(opened, allow_pickle=False, **arrays)


def joined(splits: Mapping[str, Mapping[str, Any]]) -> Arrays:
    """Returns the fields of several splits as arrays with names of their own."""
    named = {f"{split}/{name}": np.asarray(value) for split, fields in splits.items() for name, value in fields.items()}
    return {"splits": np.array(list(splits)), **named}


def parted(arrays: Arrays) -> dict[str, Arrays]:
    """Returns the fields of each split, of which `joined` made the arrays."""
    return {
        str(split): {name.removeprefix(f"{split}/"): a for name, a in arrays.items() if name.startswith(f"{split}/")}
        for split in arrays["splits"]
    }
