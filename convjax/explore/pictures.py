"""The images that the page offers: examples, and what is uploaded."""

import dataclasses
import io
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from convjax.data import images, sources
from convjax.errors import RunError, UsageError
from convjax.train import evaluate
from convjax.train.run import Run

MAX_BYTES = 20 * 2**20
"""Size above which an upload is refused."""
MAX_PIXELS = 24_000_000
"""Pixels above which an upload is not decoded: a small file may hold a huge image."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What uploads may be: formats that Pillow reads by itself, without a program such as Ghostscript."""
UPLOADS = 8
_FROM_DATA = 12


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image with 8 bits a channel, and what the page calls it."""

    name: str
    image: Image.Image


class Pictures:
    """All images by id: the examples, and the latest eight uploads."""

    def __init__(self, examples: Sequence[Picture]) -> None:
        self.examples = {f"example{i}": picture for i, picture in enumerate(examples)}
        self._uploads: OrderedDict[str, Picture] = OrderedDict()
        self._numbers = itertools.count(1)

    def __getitem__(self, key: str) -> Picture:
        found = self.examples.get(key) or self._uploads.get(key)
        if found is None:
            raise UsageError("this image is no longer here: choose or upload another one")
        return found

    def add(self, content: bytes) -> str:
        """Takes an uploaded file and returns the image's id.

        Raises:
            UsageError: it is no image, damaged, or too large.
        """
        number = next(self._numbers)
        name = f"image {number}"
        if len(content) > MAX_BYTES:
            raise UsageError(f"the file is larger than {MAX_BYTES // 2**20} MiB")
        if not content:
            raise UsageError("the file is empty")
        image = images.decode(io.BytesIO(content), "the file", formats=FORMATS, limit=MAX_PIXELS)
        self._uploads[f"upload{number}"] = Picture(name, image)
        while len(self._uploads) > UPLOADS:
            self._uploads.popitem(last=False)
        return f"upload{number}"


def photographs() -> list[Picture]:
    """Returns the two photographs that scikit-learn ships."""
    from sklearn.datasets import load_sample_image

    return [Picture(name, Image.fromarray(load_sample_image(f"{name}.jpg"))) for name in ("china", "flower")]


def digits() -> list[Picture]:
    """Returns three of the digits that scikit-learn ships."""
    split = sources.digits().test
    first = [int(np.flatnonzero(split.labels == label)[0]) for label in (0, 3, 8)]
    return [Picture(f"digit {split.labels[i]}", _grey_or_colour(split.images[i])) for i in first]


def of_run(run: Run) -> list[Picture]:
    """Returns examples of the data that a run was not trained on, the first of each class.

    They are of its validation split: nobody should get used to the images of the test split.

    Raises:
        UsageError: the data are no longer there.
        RunError: the run is damaged.
    """
    data = evaluate.load_same_data(run.read_config(), run.read_info(), run)
    split = data.splits["validation"] if len(data.splits["validation"]) else data.splits["train"]
    _, first = np.unique(split.labels, return_index=True)
    return [
        Picture(data.info.class_names[split.labels[i]], _grey_or_colour(split.images[i])) for i in first[:_FROM_DATA]
    ]


def examples(directory: Path | None) -> tuple[list[Picture], str]:
    """Returns the examples, those of the run's data first, and a note where these are missing."""
    note = ""
    if directory is not None and Run(directory).exists():
        try:
            return of_run(Run(directory)) + photographs(), note
        except (UsageError, RunError) as error:
            note = f"The run's own images cannot be shown: {error}"
    return photographs() + digits(), note


def _grey_or_colour(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
