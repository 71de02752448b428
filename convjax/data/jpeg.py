"""Plain JPEGs by libjpeg-turbo, scaled down while they are decoded."""

from typing import Literal, TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray

Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""

_START, _APP1, _SCAN = b"\xff\xd8", 0xE1, 0xDA
_EXIF = b"Exif\x00\x00"
_ORIENTATION = 0x0112
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}


def plain_size(content: bytes) -> Size | None:
    """Returns the size of a JPEG that `decode` takes; None for other files, CMYK, and what EXIF says to turn.

    Raises:
        ValueError: the header is damaged.
    """
    if not content.startswith(_START) or _is_turned(content):
        return None
    height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    return (height, width) if colours in ("Gray", "YCbCr", "RGB") else None


def decode(content: bytes, size: Size, channels: int, shrink: int = 1) -> NDArray[np.uint8]:
    """Returns uint8 `[ceil(H / shrink), ceil(W / shrink), channels]`.

    Args:
        content: the file.
        size: what `plain_size` says of it.
        channels: 1 for luma, 3 for red, green, blue.
        shrink: 1, 2, 4 or 8: fewer coefficients of each block of 8 x 8 are transformed, the lowest ones.

    Raises:
        ValueError: the file is damaged or truncated.
    """
    height, width = size
    return simplejpeg.decode_jpeg(
        content, "GRAY" if channels == 1 else "RGB", min_height=-(-height // shrink), min_width=-(-width // shrink)
    )


def _is_turned(content: bytes) -> bool:
    """Says whether EXIF asks for another orientation than that of the pixels."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != _SCAN:
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place + 4 : place + 2 + length]
        if content[place + 1] == _APP1 and segment.startswith(_EXIF):
            return _orientation(segment.removeprefix(_EXIF)) != 1
        place += 2 + length
    return False


def _orientation(tiff: bytes) -> int:
    """Returns the orientation that EXIF's first directory tells (JEITA CP-3451, 4.6.4); 1 where it makes no sense."""
    order = _ORDERS.get(tiff[:2])
    if order is None:
        return 1

    def number(place: int, length: int) -> int:
        return int.from_bytes(tiff[place : place + length], order)

    directory = number(4, 4)
    for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(tiff)), 12):
        if number(entry, 2) == _ORIENTATION:
            return number(entry + 8, 2)
    return 1
