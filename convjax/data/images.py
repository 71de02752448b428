"""Image files: what a user hands in, as the uint8 pixels that a network sees."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from convjax.data import jpeg
from convjax.errors import UsageError, check_choices, require

MIN_SIDE = 4
"""Pixels below which a side of an image holds no pattern to classify."""
MOST_PIXELS = 178_956_970
"""Above which nothing is decoded, as Pillow has it: 512 MiB of red, green, blue. Such a file may be an attack."""
_SLACK = 2
"""How much larger than needed an image stays when it is shrunk in decoding, for antialiasing to do the rest."""


@dataclasses.dataclass(frozen=True)
class Crop:
    """How an image is brought to a network's size and order of pixels."""

    share: float = 1.0
    """The share of each side, of the largest part of the network's shape, that is cut out of the centre."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels in between are found; always antialiased."""
    permute_pixels: int | None = None
    """Seed of one permutation that the pixels of every image of every split are put in; None leaves them in order."""

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "crop.share", self.share, "above 0 and at most 1")
        seed = self.permute_pixels
        require(seed is None or 0 <= seed < 2**32, "crop.permute_pixels", seed, "from 0 to 2**32 - 1, or None")
        check_choices(self, "crop")


WHOLE = Crop()
"""The largest part of the network's shape."""


def read(path: Path, height: int, width: int, channels: int, crop: Crop = Crop()) -> NDArray[np.uint8]:
    """Reads an image file as the uint8 `[height, width, channels]` that a network was trained on.

    See `decode` for the files it takes and `view` for what it makes of them.

    Raises:
        UsageError: the file is missing, empty, truncated, no image, or below 4 pixels on a side.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    return view(path.read_bytes(), str(path), (height, width), channels, crop)


def view(content: bytes, name: str, size: jpeg.Size | None, channels: int, crop: Crop = Crop()) -> NDArray[np.uint8]:
    """Returns what evaluation sees of an image file: uint8 `[height, width, channels]`.

    See `decode` for the files it takes and `fit` for the part.

    Args:
        content: of the file.
        name: what messages call it.
        size: height and width; None keeps the image's.
        channels: 1 or 3; grey and colour are converted into each other.
        crop: which part.

    Raises:
        UsageError: as `decode`.
    """
    encoded = EncodedImage.read(content, name)
    if size is None:
        return in_order(encoded.pixels(channels)[0], crop)
    shortest = min(encoded.height, encoded.width)
    whole, _ = encoded.pixels(channels, shortest * crop.share / (_SLACK * max(size)))
    part = fit(Image.fromarray(whole[..., 0] if channels == 1 else whole), size, crop)
    return in_order(_array(part, channels), crop)


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image file of which the size is known, and that is decoded no further than is needed.

    Attributes:
        name: what messages call it.
        height: in pixels, upright.
        width: likewise.
    """

    name: str
    height: int
    width: int
    _content: bytes
    _decoded: Image.Image | None

    @classmethod
    def read(cls, content: bytes, name: str) -> "EncodedImage":
        """Reads the header of a plain JPEG, or the whole of another file.

        Raises:
            UsageError: as `decode`.
        """
        if not content:
            raise UsageError(f"{name}: the file is empty")
        with _damage(name):
            size = jpeg.plain_size(content)
        if size is not None:
            _check_size(name, *size, MOST_PIXELS)
            return cls(name, *size, content, None)
        image = decode(io.BytesIO(content), name, limit=MOST_PIXELS)
        return cls(name, image.height, image.width, content, image)

    def pixels(self, channels: int, factor: float = 1.0) -> tuple[NDArray[np.uint8], int]:
        """Returns uint8 `[h, w, channels]`, and how many times smaller than the image that is: 1, 2, 4 or 8.

        Args:
            channels: 1 or 3; grey and colour are converted into each other.
            factor: how many times smaller it may be at most.

        Raises:
            UsageError: the image is damaged or truncated.
        """
        if self._decoded is not None:
            return _array(self._decoded.convert("L" if channels == 1 else "RGB"), channels), 1
        shrink = next((shrink for shrink in (8, 4, 2) if factor >= shrink), 1)
        with _damage(self.name):
            return jpeg.decode(self._content, (self.height, self.width), channels, shrink), shrink


@contextlib.contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{name}: the image is damaged or truncated ({error})") from error


def decode(
    file: Path | BinaryIO, name: str, *, formats: tuple[str, ...] | None = None, limit: int | None = None
) -> Image.Image:
    """Reads an image with 8 bits a channel and no transparency.

    Palettes are looked up, 16 bits scaled to 8, EXIF rotation applied; transparent pixels show white.

    Args:
        file: where it is read from.
        name: what messages call it.
        formats: Pillow's names of the formats that are taken; None for all.
        limit: number of pixels above which nothing is decoded; None for Pillow's own.

    Raises:
        UsageError: what the file holds is truncated, no image, too large, or below 4 pixels on a side.
    """
    try:
        with Image.open(file, formats=formats) as opened:
            _check_size(name, opened.height, opened.width, limit)
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError as error:
        taken = "PNG, JPEG, WebP, ..." if formats is None else ", ".join(formats)
        raise UsageError(f"{name}: not an image that Pillow can read ({taken})") from error
    except Image.DecompressionBombError as error:
        raise UsageError(f"{name}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{name}: the image is damaged or truncated ({error})") from error
    return _to_eight_bits(image)


def _check_size(name: str, height: int, width: int, limit: int | None) -> None:
    if limit is not None and width * height > limit:
        raise UsageError(f"{name}: {width} x {height} pixels; at most {limit:,} are taken")
    if min(height, width) < MIN_SIDE:
        raise UsageError(f"{name}: {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed")


def pixels(image: Image.Image, height: int, width: int, channels: int, crop: Crop = Crop()) -> NDArray[np.uint8]:
    """Returns a decoded image as uint8 `[height, width, channels]`.

    Grey and colour are converted into each other. The image is resized to cover height and width and its centre cut
    out.
    """
    plain = image.convert("L" if channels == 1 else "RGB")
    return in_order(_array(fit(plain, (height, width), crop), channels), crop)


def _array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    array = np.asarray(image, np.uint8)
    return array[..., None] if channels == 1 else array


def fit(image: Image.Image, size: tuple[int, int], crop: Crop = Crop()) -> Image.Image:
    """Resizes an image until (height, width) is the share of it that `crop` says, and cuts that out of the centre."""
    height, width = size
    if image.size == (width, height) and crop.share == 1:
        return image
    method = Image.Resampling[crop.interpolation.upper()]
    outer_width, outer_height = round(width / crop.share), round(height / crop.share)
    left, top = (outer_width - width) // 2, (outer_height - height) // 2
    return ImageOps.fit(image, (outer_width, outer_height), method).crop((left, top, left + width, top + height))


def in_order(images: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Returns images `[..., H, W, C]` with their pixels in the order that a network sees them in."""
    return images if crop.permute_pixels is None else permuted(images, crop.permute_pixels)


def permuted(images: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Returns images `[..., H, W, C]` whose pixels are put in another order: the same one for every image.

    A pixel keeps its channels together. The order is a function of the seed and of H and W.
    """
    height, width, channels = images.shape[-3:]
    pixels = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(height * width)
    flat = images.reshape(*images.shape[:-3], height * width, channels)
    return flat[..., pixels, :].reshape(images.shape)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Returns the image with 8 bits a channel and no transparency."""
    if image.mode.startswith(("I;16", "I", "F")):
        values = np.asarray(image, np.float64)
        # Files of 16 bits may use the whole range up to 65535. The other modes do not tell their range: there,
        # values that fit into 8 bits are taken as they are.
        scale = 255 / 65535 if image.mode.startswith("I;16") or values.max() > 255 else 1.0
        return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image
