"""Image files of all kinds: what evaluation sees of them, and what is said of the broken ones."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageOps

from convjax.data.images import Crop, EncodedImage, view
from convjax.errors import UsageError

DATA: Any = skimage.data
PHOTOGRAPH = Image.fromarray(DATA.coffee()).resize((300, 256))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def seen(content: bytes, channels: int = 3) -> NDArray[np.uint8]:
    return view(content, "photo", None, channels)


@pytest.mark.parametrize("options", [{}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
def test_a_jpeg_is_decoded_to_pillows_bits(options: dict[str, Any]) -> None:
    content = encoded(PHOTOGRAPH, **options)
    np.testing.assert_array_equal(seen(content), np.asarray(Image.open(io.BytesIO(content))))


def test_a_grey_jpeg_has_one_channel_or_three_equal_ones() -> None:
    content = encoded(PHOTOGRAPH.convert("L"))
    expected = np.asarray(Image.open(io.BytesIO(content)))[..., None]
    np.testing.assert_array_equal(seen(content, 1), expected)
    np.testing.assert_array_equal(seen(content, 3), np.broadcast_to(expected, (256, 300, 3)))


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_a_jpeg_is_shrunk_to_the_means_of_its_blocks(shrink: int) -> None:
    """Each block of 8 x 8 pixels is of one grey: nothing but its mean is in the file."""
    greys = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
    content = encoded(Image.fromarray(np.kron(greys, np.ones((8, 8), np.uint8))), quality=100)
    pixels, shrunk = EncodedImage.read(content, "photo").pixels(1, shrink + 0.9)
    assert shrunk == shrink
    np.testing.assert_array_equal(pixels[..., 0], np.kron(greys, np.ones((8 // shrink, 8 // shrink), np.uint8)))


def test_resize_256_crop_224_cuts_the_centre_out_of_an_image_of_256() -> None:
    expected = np.asarray(PHOTOGRAPH)[16:-16, 38:-38]
    found = view(encoded(PHOTOGRAPH, "PNG"), "photo", (224, 224), 3, Crop(0.875))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("share", "side"), [(0.875, 256), (0.95, 236)])
def test_evaluation_resizes_the_shorter_side_and_cuts_224_out(share: float, side: int) -> None:
    """By Pillow, step by step, as torchvision does it; of a shape for which no side is rounded."""
    photograph = Image.fromarray(DATA.astronaut()).crop((0, 0, 450, 300))
    resized = photograph.resize((side * 3 // 2, side), Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) // 2, (side - 224) // 2
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)
    found = view(encoded(photograph, "PNG"), "photo", (224, 224), 3, Crop(share))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_is_finer_than_the_pixels_is_averaged_away(kind: str) -> None:
    fine = np.indices((960, 960)).sum(0) % 2 * 255
    content = encoded(Image.fromarray(fine.astype(np.uint8)), kind)
    found = view(content, "photo", (100, 100), 1)
    assert np.abs(found.astype(int) - 127).max() <= 2


def test_cmyk_is_what_pillow_makes_of_it() -> None:
    content = encoded(PHOTOGRAPH.convert("CMYK"))
    np.testing.assert_array_equal(seen(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert np.abs(seen(content).astype(int) - np.asarray(PHOTOGRAPH)).mean() < 8, "and so not its negative"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_otherwise_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(PHOTOGRAPH, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(seen(content), np.asarray(expected))
    found = EncodedImage.read(content, "photo")
    assert (found.width, found.height) == ((300, 256) if orientation < 5 else (256, 300))


def test_exif_that_makes_no_sense_turns_nothing() -> None:
    content = encoded(PHOTOGRAPH, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(seen(content), np.asarray(Image.open(io.BytesIO(encoded(PHOTOGRAPH)))))


def test_sixteen_bits_are_scaled_to_eight() -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    content = encoded(Image.fromarray(ramp * 257), "PNG")
    np.testing.assert_array_equal(seen(content, 1)[..., 0], ramp)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_seen(kind: str) -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("black", "white", "red")]
    content = encoded(pictures[0], kind, save_all=True, append_images=pictures[1:])
    assert seen(content).shape == (16, 16, 3)
    assert not seen(content).any()


def test_webp_is_read() -> None:
    np.testing.assert_array_equal(seen(encoded(PHOTOGRAPH, "WEBP", lossless=True)), np.asarray(PHOTOGRAPH))


def bomb(kind: str) -> bytes:
    """A small file that says to be 20,000 x 20,000 pixels."""
    content = bytearray(encoded(PHOTOGRAPH, kind))
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", 20_000, 20_000)
    else:
        content[16:24] = struct.pack(">II", 20_000, 20_000)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb("JPEG"), "20000 x 20000 pixels; at most 178,956,970"),
        (bomb("PNG"), "400000000 pixels"),
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image"),
        (encoded(PHOTOGRAPH)[:3000], "damaged or truncated"),
        (encoded(PHOTOGRAPH)[:-2], "damaged or truncated"),
        (encoded(PHOTOGRAPH)[:30], "damaged or truncated"),
        (encoded(PHOTOGRAPH, "PNG")[:3000], "damaged or truncated"),
        (encoded(PHOTOGRAPH, "WEBP")[:3000], "damaged or truncated|not an image"),
        (encoded(Image.new("RGB", (300, 2))), "300 x 2 pixels; at least 4 x 4"),
        (encoded(Image.new("RGB", (2, 300)), "PNG"), "2 x 300 pixels; at least 4 x 4"),
    ],
)
def test_a_broken_image_is_named(content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=f"^photo: .*({message})"):
        view(content, "photo", (8, 8), 3)
