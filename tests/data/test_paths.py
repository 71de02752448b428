"""Folders, manifests and tar shards: the same images, whatever names them, and what is said of wrong ones."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convjax.data import splits
from convjax.data.splits import Splits
from convjax.errors import UsageError

CLASSES = ("ants", "bees", "cats")
COUNTS = {"train": 6, "val": 2, "test": 3}
"""Images of each class by split."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(number: int, side: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (side, side + number % 7, 3)).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of three classes in train, val and test; no two of them alike, nor in size."""
    root, number = tmp_path / "photos", 0
    for split, count in COUNTS.items():
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                (root / split / label / f"{i}.png").write_bytes(png(picture(number)))
                number += 1
    return root


def load(path: Path, *, validation: float = 0.0, broken_limit: int = 0, lazy: bool = True) -> Splits:
    return splits.load(
        str(path), directory=None, image_size=16, validation=validation, lazy=lazy, broken_limit=broken_limit
    )


def rows(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("*/*/*"), key=lambda f: (list(COUNTS).index(f.parts[-3]), f))
    return [{"path": str(f.relative_to(folder)), "label": f.parts[-2], "split": f.parts[-3]} for f in files]


def write_csv(folder: Path) -> Path:
    with (file := folder / "all.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["split", "label", "path"])
        writer.writeheader()
        writer.writerows(rows(folder))
    return file


def write_jsonl(folder: Path) -> Path:
    (file := folder / "all.jsonl").write_text("\n".join(json.dumps({**row, "more": [1]}) for row in rows(folder)))
    return file


def write_tar(file: Path, members: list[tuple[str, bytes]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def write_shards(
    folder: Path, label: Callable[[str], list[tuple[str, bytes]]], name: str = "photos-{split}-{i}.tar"
) -> Path:
    """Writes two shards a split."""
    root = folder.parent / "shards"
    for split in COUNTS:
        members = [
            [
                (f"{i:04d}.png", (folder / row["path"]).read_bytes()),
                *((f"{i:04d}{s}", c) for s, c in label(row["label"])),
            ]
            for i, row in enumerate(rows(folder))
            if row["split"] == split
        ]
        for i, part in enumerate((members[:5], members[5:])):
            write_tar(root / name.format(split=split, i=i), [member for example in part for member in example])
    return root


def test_a_folder_of_class_folders_is_read(folder: Path) -> None:
    data = load(folder)
    assert data.info.class_names == CLASSES
    assert data.info.examples == {"train": 18, "validation": 6, "test": 9}
    assert data.splits["validation"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    exact = splits.load(str(folder), directory=None, image_size=24, validation=0.0, lazy=True)
    # The smallest image is 24 x 24 (its number is a multiple of 7) and so comes as it is.
    np.testing.assert_array_equal(exact.splits["train"].images[7], picture(7))
    assert load(folder, lazy=False).info == data.info


@pytest.mark.parametrize(
    "write",
    [
        write_csv,
        write_jsonl,
        lambda folder: write_shards(folder, lambda label: [(".cls", label.encode())]),
        lambda folder: write_shards(folder, lambda label: [(".json", json.dumps({"label": label}).encode())]),
        lambda folder: write_shards(folder, lambda label: [(".cls", label.encode())], "{split}/{i}.tar"),
    ],
)
def test_a_manifest_and_shards_give_what_the_folder_gives(folder: Path, write: Callable[[Path], Path]) -> None:
    """By fingerprints: the same pixels and labels in the same order."""
    expected, found = load(folder).info, load(write(folder))
    assert found.info.fingerprint == expected.fingerprint
    assert found.info.class_names == CLASSES
    assert found.info.normalise == expected.normalise
    again = load(folder.parent / "shards" if (folder.parent / "shards").exists() else write(folder))
    assert again.info == found.info
    chosen = np.array([11, 2, 17, 3])
    np.testing.assert_array_equal(found.splits["train"].images[chosen], load(folder).splits["train"].images[chosen])


def test_a_shard_may_hold_class_folders_and_numbers_are_ordered_as_such(folder: Path) -> None:
    file = write_tar(
        folder.parent / "one.tar", [(f"{label}/{i}.png", png(picture(i))) for label in (10, 9) for i in range(5)]
    )
    data = splits.load(str(file), directory=None, image_size=16, validation=0.2, lazy=True)
    assert data.info.class_names == ("9", "10")
    assert sum(data.info.examples.values()) == 10


def test_without_splits_a_fifth_is_the_test_split(folder: Path) -> None:
    data = load(folder / "train", validation=0.2)
    assert data.info.examples == {"train": 11, "validation": 3, "test": 4}
    whole = np.concatenate([np.asarray(split.images).reshape(len(split), -1) for split in data.splits.values()])
    assert len(np.unique(whole, axis=0)) == 18, "each image is in one of the splits"


def test_a_relative_path_begins_in_the_directory(folder: Path) -> None:
    data = splits.load("./photos", directory=str(folder.parent), image_size=16, validation=0.0, lazy=True)
    assert data.info.fingerprint == load(folder).info.fingerprint


def test_other_files_are_looked_at_anew(folder: Path) -> None:
    before = load(folder).info
    (folder / "train" / "ants" / "3.png").write_bytes(png(picture(99)))
    after = load(folder).info
    assert after.fingerprint["train"] != before.fingerprint["train"]
    assert after.fingerprint["test"] == before.fingerprint["test"]


@pytest.mark.parametrize("lazy", [False, True])
def test_broken_images_are_named_counted_and_left_out_where_that_is_allowed(
    folder: Path, lazy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"train/bees/2.png": b"", "train/cats/0.png": b"no image", "test/ants/1.png": png(picture(1))[:300]}
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=r"3 of 33 images are broken, data\.broken_limit is 2") as raised:
        load(folder, broken_limit=2, lazy=lazy)
    found = load(folder, broken_limit=3, lazy=lazy)
    for name in broken:
        assert name in str(raised.value)
        assert name in caplog.text
    assert found.info.examples == {"train": 16, "validation": 6, "test": 8}
    for name in broken:
        (folder / name).unlink()
    sound = load(folder)
    assert sound.info == found.info, "as if they had never been there"
    np.testing.assert_array_equal(found.splits["train"].images, sound.splits["train"].images)


def test_an_image_that_vanishes_later_ends_the_reading_with_its_name(folder: Path) -> None:
    train = load(folder).splits["train"]
    (folder / "train" / "bees" / "1.png").unlink()
    with pytest.raises(UsageError, match=r"cannot be read: .*No such file.*bees/1\.png"):
        train.images[np.arange(18)]


def emptied(folder: Path) -> Path:
    for file in (folder / "train" / "bees").iterdir():
        file.unlink()
    return folder


def with_file(name: str, content: bytes = b"x") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return folder / name if name.endswith((".csv", ".jsonl", ".tar", ".txt")) and "/" not in name else folder

    return write


def empty(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def cut_between(folder: Path) -> Path:
    root = write_shards(folder, lambda label: [(".cls", label.encode())])
    file = root / "photos-train-1.tar"
    with tarfile.open(file) as tar:
        last = tar.getmembers()[-2]
    file.write_bytes(file.read_bytes()[: last.offset])
    return root


def truncated(folder: Path) -> Path:
    root = write_shards(folder, lambda label: [(".cls", label.encode())])
    file = root / "photos-train-1.tar"
    file.write_bytes(file.read_bytes()[:5000])
    return root


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, r"nothing holds no folders: it must hold a folder a class"),
        (emptied, r"train/bees holds no images"),
        (with_file("train/ants/notes.txt"), r"train/ants/notes\.txt is no image file \(known are \.bmp, "),
        (with_file("train/photo.png"), r"holds the file photo\.png beside folders"),
        (with_file("others/a.png"), r"holds test, train, val beside others"),
        (with_file("test/antz/a.png"), r"test/antz is a class that the train split has not: did you mean ants"),
        (lambda folder: folder / "missing", r"there is no .*missing"),
        (with_file("list.csv", b"file,label\n"), r"list\.csv has no column path: its first line is 'file,label'"),
        (with_file("list.csv", b"path,label\n"), r"list\.csv names no images"),
        (with_file("list.csv", b"path,label\na.png,\n"), r"line 2: label is missing"),
        (with_file("list.csv", b"path,label\nnone.png,a\n"), r"names .*none\.png, which cannot be read: No such file"),
        (with_file("list.csv", b"path,label\ntrain,a\n"), r"line 2: train is no image file"),
        (with_file("list.csv", b"path,label,split\na.png,a,dev\n"), r"split is 'dev': it must be train, val or test"),
        (with_file("list.csv", b"path,label\n\xff\xfe,a\n"), r"list\.csv cannot be read: .*utf-8"),
        (with_file("list.jsonl", b'{"path": "a.png"}\n'), r"line 1: label is missing \(there: path\)"),
        (with_file("list.jsonl", b"[1]\n"), r"line 1: it must be an object"),
        (with_file("list.jsonl", b"{\n"), r"line 1: no JSON"),
        (with_file("list.txt"), r"it must be a folder, or a file that ends in \.csv, \.jsonl, \.tar"),
        (with_file("some.tar", b"x" * 2000), r"some\.tar is no tar file, or damaged"),
        (cut_between, r"photos-train-1\.tar is truncated: it lacks the empty block"),
        (truncated, r"photos-train-1\.tar is (truncated|no tar file)"),
        (lambda f: write_tar(f / "some.tar", [("a.txt", b"a")]), r"some\.tar holds no images"),
        (lambda f: write_tar(f / "some.tar", [("a.png", b"a")]), r"a\.png has no label: there must be a\.cls, a\.json"),
        (lambda f: write_tar(f / "some.tar", [("a.png", b"a"), ("a.cls", b"")]), r"a\.cls is empty"),
        (
            lambda f: write_tar(f / "some.tar", [("a.png", b"a"), ("a.json", b"{}")]),
            r"a\.json holds no label \(KeyError",
        ),
    ],
)
def test_what_is_wrong_is_named(folder: Path, spoil: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(spoil(folder))


def test_a_name_of_a_folder_here_is_told_how_to_say_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UsageError, match=r"of the folder or file here say \./photos"):
        splits.load("photos", directory=None, image_size=16, validation=0.0)
