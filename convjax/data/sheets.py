"""Pictures of examples in a grid."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


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
