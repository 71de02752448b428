from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convjax.data import images, sheets
from convjax.errors import UsageError

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def read(tmp_path: Path, image: Image.Image, channels: int, name: str = "image.png") -> NDArray[np.uint8]:
    image.save(tmp_path / name)
    return images.read(tmp_path / name, 8, 8, channels)


def test_a_grey_image_of_the_right_size_is_read_as_it_is(tmp_path: Path) -> None:
    assert (read(tmp_path, Image.fromarray(RAMP), 1)[..., 0] == RAMP).all()


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    assert (read(tmp_path, Image.fromarray(RAMP), 3) == RAMP[..., None]).all()


def test_colour_becomes_luma(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    # ITU-R 601: 0.299 of red.
    assert (read(tmp_path, Image.fromarray(red), 1) == round(0.299 * 255)).all()


def test_pixels_are_permuted_as_those_of_the_data_set_are(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "ramp.png")
    found = images.read(tmp_path / "ramp.png", 8, 8, 1, images.Crop(permute_pixels=5))
    assert (found == images.permuted(RAMP[None, ..., None], 5)[0]).all()
    assert (found[..., 0] != RAMP).any()


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    wide = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert wide.mode == "I;16"
    assert (read(tmp_path, wide, 1)[..., 0] == RAMP).all()


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert read(tmp_path, palette, 3)[0, 0].tolist() == [10, 20, 30]


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert (read(tmp_path, clear, 3) == 255).all()
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert (read(tmp_path, half, 1) == 127).all()


def test_the_camera_held_sideways_is_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image.save(tmp_path / "turned.png", exif=exif)
    assert (images.read(tmp_path / "turned.png", 8, 8, 1)[..., 0] == np.rot90(RAMP, -1)).all()


def test_another_shape_is_covered_and_its_centre_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 255
    assert (read(tmp_path, Image.fromarray(wide), 1) == 255).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"this is text", "not an image"),
        ("truncated", "damaged or truncated"),
        ("tiny", "1 x 1 pixels"),
    ],
)
def test_a_bad_file_is_named(content: bytes | str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    if content == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:1000])
    elif content == "tiny":
        Image.new("L", (1, 1)).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"bad.png: .*{message}"):
        images.read(path, 8, 8, 1)


def test_a_contact_sheet_shows_every_example_enlarged() -> None:
    examples = np.stack([np.full((8, 8, 1), value, np.uint8) for value in (0, 100, 200)])
    sheet = np.asarray(sheets.contact_sheet(examples, [0, 1, 2], ("a", "b", "c"), columns=2))
    for value in (0, 100, 200):
        # Eight pixels, eight times enlarged, in three equal channels; captions may add a few.
        assert (sheet == value).all(axis=-1).sum() >= 64 * 64
