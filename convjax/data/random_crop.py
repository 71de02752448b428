"""A random part of each image, cut out while it is decoded: the same part whoever decodes it, and in which order."""

import dataclasses
import functools
import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convjax.data.images import EncodedImage
from convjax.data.jpeg import Size
from convjax.errors import require

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom lie outside."""

_TRIES = 10
_STREAM = 1 << 63
"""Apart from the keys that `convjax.data.order` draws permutations with."""


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """Cuts a random part out of each training image and brings it to size (Szegedy et al. 2014, arXiv:1409.4842, 6).

    A part whose share of the area and whose shape are drawn; ten times, and else the largest centre of an allowed
    shape, as torchvision's RandomResizedCrop has it.
    """

    area: tuple[float, float] | None = None
    """Least and largest share of the image's area, as 0.08 1 for ImageNet; None cuts the centre out, as evaluation."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width divided by height, of which the logarithm is drawn."""

    def __post_init__(self) -> None:
        shares = self.area is None or 0 < self.area[0] <= self.area[1] <= 1
        require(shares, "data.resized_crop.area", self.area, "two rising shares above 0 up to 1")
        rising = 0 < self.ratio[0] <= self.ratio[1]
        require(rising, "data.resized_crop.ratio", self.ratio, "two rising numbers above 0")

    def box(self, height: int, width: int, seed: int, epoch: int, example: int) -> Box:
        """Returns the part of an example in an epoch: a function of these and of the image's size."""
        assert self.area is not None
        # Counter-based: any draw is reached at once, whatever was drawn before.
        philox = np.random.Philox(key=np.array([seed, _STREAM + epoch], np.uint64), counter=[0, 0, 0, example])
        draws = np.random.Generator(philox).random((_TRIES, 4))
        low, high = (math.log(bound) for bound in self.ratio)
        for share, shape, left, top in draws.tolist():
            area = height * width * (self.area[0] + share * (self.area[1] - self.area[0]))
            ratio = math.exp(low + shape * (high - low))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                x, y = int(left * (width - w + 1)), int(top * (height - h + 1))
                return x, y, x + w, y + h
        w, h = min(width, round(height * self.ratio[1])), min(height, round(width / self.ratio[0]))
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h


def cut(encoded: EncodedImage, box: Box, size: Size, channels: int) -> NDArray[np.uint8]:
    """Returns a part of an image, brought to size: uint8 `[*size, channels]`.

    Where both sides shrink, each pixel is the mean of the area that it covers, else it is interpolated linearly.

    Raises:
        UsageError: the image is damaged or truncated.
    """
    left, top, right, bottom = box
    pixels, shrunk = encoded.pixels(channels, min((bottom - top) / size[0], (right - left) / size[1]))
    # At least one pixel is left: a part is only shrunk where it is larger than `size`.
    part = pixels[top // shrunk : -(-bottom // shrunk), left // shrunk : -(-right // shrunk)]
    cv2 = _opencv()
    shrinks = part.shape[0] >= size[0] and part.shape[1] >= size[1]
    resized = cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8).reshape(*size, channels)


@functools.cache
def _opencv() -> Any:
    """Imports OpenCV, which only who cuts waits for, and leaves the threads to the images."""
    import cv2

    cv2.setNumThreads(1)
    return cv2
