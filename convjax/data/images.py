"""Image files and pictures: what a user hands in, and what is drawn for the user."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from convjax.errors import UsageError, check_choices

MIN_SIDE = 4
"""Pixels below which a side of an image holds no pattern to classify."""


@dataclasses.dataclass(frozen=True)
class Crop:
    """How an image is brought to a network's size and order of pixels.

    Attributes:
        share: the share of each side, of the largest part of the network's shape, that is cut out of the centre.
        interpolation: how pixels in between are found; always antialiased.
        permute_pixels: seed of the permutation that the pixels are put in last, see `permuted`; None for none.
    """

    share: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    permute_pixels: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"crop.share is {self.share}: it must be above 0 and at most 1")
        check_choices(self, "crop")


def read(path: Path, height: int, width: int, channels: int, crop: Crop = Crop()) -> NDArray[np.uint8]:
    """Reads an image file as the uint8 `[height, width, channels]` that a network was trained on.

    See `decode` for the files it takes and `pixels` for what it makes of them.

    Raises:
        UsageError: the file is missing, empty, truncated, no image, or below 4 pixels on a side.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise UsageError(f"{path}: the file is empty")
    return pixels(decode(path, str(path)), height, width, channels, crop)


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
            if limit is not None and opened.width * opened.height > limit:
                raise UsageError(f"{name}: {opened.width} x {opened.height} pixels; at most {limit:,} are taken")
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError as error:
        taken = "PNG, JPEG, WebP, ..." if formats is None else ", ".join(formats)
        raise UsageError(f"{name}: not an image that Pillow can read ({taken})") from error
    except Image.DecompressionBombError as error:
        raise UsageError(f"{name}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{name}: the image is damaged or truncated ({error})") from error
    if min(image.size) < MIN_SIDE:
        raise UsageError(f"{name}: {image.width} x {image.height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed")
    return _to_eight_bits(image)


def pixels(image: Image.Image, height: int, width: int, channels: int, crop: Crop = Crop()) -> NDArray[np.uint8]:
    """Returns a decoded image as uint8 `[height, width, channels]`.

    Grey and colour are converted into each other. The image is resized to cover height and width and its centre cut
    out.
    """
    plain = fit(image.convert("L" if channels == 1 else "RGB"), (height, width), crop)
    array = np.asarray(plain, np.uint8).reshape(height, width, channels)
    return array if crop.permute_pixels is None else permuted(array, crop.permute_pixels)


def fit(image: Image.Image, size: tuple[int, int], crop: Crop = Crop()) -> Image.Image:
    """Resizes an image until (height, width) is the share of it that `crop` says, and cuts that out of the centre."""
    height, width = size
    if image.size == (width, height) and crop.share == 1:
        return image
    method = Image.Resampling[crop.interpolation.upper()]
    outer_width, outer_height = round(width / crop.share), round(height / crop.share)
    left, top = (outer_width - width) // 2, (outer_height - height) // 2
    return ImageOps.fit(image, (outer_width, outer_height), method).crop((left, top, left + width, top + height))


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


def contact_sheet(
    images: NDArray[np.uint8], labels: Sequence[int], class_names: Sequence[str], columns: int = 10
) -> Image.Image:
    """Draws examples in a grid, each with its class name underneath.

    Args:
        images: uint8 `[N, H, W, C]`, C 1 or 3; small ones are enlarged by a whole number.
        labels: class of each image.
        class_names: name of each class.
        columns: images in a row.
    """
    return tiles(list(images), [class_names[label] for label in labels], columns=columns)


def tiles(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[str], *, columns: int = 10, side: int = 64
) -> Image.Image:
    """Draws images in a grid, each with its caption underneath, shortened where it is too long.

    Args:
        images: uint8 `[h, w, C]` each, C 1 or 3; small ones are enlarged by one whole number.
        captions: of each image; no room is left for them where all are empty.
        columns: images in a row.
        side: pixels that the largest side is at least enlarged to, as nearly as a whole number does it.
    """
    zoom = max(1, side // max(max(image.shape[:2]) for image in images))
    height, width = (zoom * max(image.shape[axis] for image in images) for axis in (0, 1))
    caption, margin = 16 if any(captions) else 0, 6
    rows = math.ceil(len(images) / columns)
    cell = (width + margin, height + caption + margin)
    sheet = Image.new("RGB", (min(columns, len(images)) * cell[0] + margin, rows * cell[1] + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (pixels, text) in enumerate(zip(images, captions, strict=True)):
        left, top = margin + i % columns * cell[0], margin + i // columns * cell[1]
        tile = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
        sheet.paste(tile.resize((tile.width * zoom, tile.height * zoom), Image.Resampling.NEAREST), (left, top))
        while len(text) > 1 and draw.textlength(text) > width:
            text = text[:-1]
        draw.text((left, top + height + 1), text, fill="black")
    return sheet
