"""Image-classification sets prepared by TensorFlow Datasets, read without TensorFlow."""

import contextlib
import io
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convjax.data.images import Crop
from convjax.data.jpeg import Size
from convjax.data.opened import Opened
from convjax.data.records import Encoded, Records, View
from convjax.data.sources import unknown
from convjax.errors import UsageError

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.\-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_FILE_NAME = "file_name"
"""The feature by which TFDS's sets name an image, where they do."""


def open_records(name: str, *, directory: str | None, size: Size | None, crop: Crop) -> Opened:
    """Opens a prepared TFDS set without reading its examples; see `convjax.data.sources.open_records`."""
    folder = find(name, directory)
    tfds = _import_tfds()
    what = f"data set {name!r} in {folder}"
    try:
        builder = tfds.builder_from_directory(folder)
        image_key, label_key = _feature_keys(tfds, name, builder.info)
        features = builder.info.features
        seen = View(size, 1 if features[image_key].shape[-1] == 1 else 3, crop)
        splits = {
            split: Records(what, _Source(builder, split, image_key, label_key, tfds), seen)
            for split in ("train", "validation", "test")
            if split in builder.info.splits
        }
        if "validation" in splits and "test" in splits and splits["test"].unlabelled():
            del splits["test"]  # that of a competition, as ImageNet's
    except UsageError:
        raise
    except Exception as error:  # TFDS, protobuf and ArrayRecord each raise their own
        raise UsageError(f"{what} cannot be read: {error}") from error
    if "train" not in splits:
        raise UsageError(f"data set {name!r} has no train split, only {sorted(builder.info.splits)}")
    return Opened.of(name, str(builder.version), tuple(features[label_key].names), splits, _identity(folder))


class _Source:
    """A split of a prepared set."""

    def __init__(self, builder: Any, split: str, image_key: str, label_key: str, tfds: Any) -> None:
        self._records = builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
        self._split, self._image_key, self._label_key = split, image_key, label_key
        self._named = _FILE_NAME in builder.info.features

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, numbers: Sequence[int]) -> list[Encoded]:
        return [
            Encoded(self._name(record, number), record[self._image_key], int(record[self._label_key]))
            for number, record in zip(numbers, self._records.__getitems__(numbers), strict=True)
        ]

    def _name(self, record: dict[str, Any], number: int) -> str:
        file = f" ({bytes(record[_FILE_NAME]).decode(errors='replace')})" if self._named else ""
        return f"{self._split} record {number}{file}"


def _identity(folder: Path) -> str:
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir())
    return f"{folder.resolve()} {files}"


def find(name: str, directory: str | None) -> Path:
    """Returns the folder that holds the prepared set, its newest version unless the name gives one.

    Looked up by hand and first of all: TFDS itself would try the network for minutes where a set is missing.

    Raises:
        UsageError: the name is malformed or unknown, or the set has not been prepared.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"data.name is {name!r}: it must read name, name/config or name:1.2.3")
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    root = Path(directory or default).expanduser()
    folder = root / match["set"] / (match["config"] or "")
    versions = sorted(
        (tuple(map(int, f.parent.name.split("."))), f.parent)
        for f in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", f.parent.name)
    )
    if match["version"]:
        versions = [v for v in versions if v[1].name == match["version"]]
    if versions:
        return versions[-1][1]

    prepared = sorted({f.parents[1].name for f in root.glob("*/*/dataset_info.json")})
    known = _import_tfds().list_builders(with_community_datasets=False)
    if match["set"] not in known and match["set"] not in prepared:
        raise unknown(name, sorted({*known, *prepared}))
    raise UsageError(
        f"data set {name!r} is not prepared in {root} (prepared there: {', '.join(prepared) or 'nothing'}). "
        f"Prepare it on a machine with a network: pip install tensorflow && "
        f"tfds build {match['set']} --file_format=array_record --data_dir={root}; "
        "or name another folder by --data.directory or $TFDS_DATA_DIR"
    )


def _import_tfds() -> Any:
    """Imports TFDS without the banner it prints where TensorFlow is not installed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import tensorflow_datasets

        logging.getLogger("absl").setLevel(logging.ERROR)
    return tensorflow_datasets


def _feature_keys(tfds: Any, name: str, info: Any) -> tuple[str, str]:
    """Returns the names of the image and of the label among a set's features."""
    features = info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    labels = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
    if info.supervised_keys and info.supervised_keys[0] in images and info.supervised_keys[1] in labels:
        return info.supervised_keys[0], info.supervised_keys[1]
    if len(images) == 1 and (len(labels) == 1 or "label" in labels):
        return images[0], "label" if "label" in labels else labels[0]
    raise UsageError(f"data set {name!r} is not one of image classification: its features are {list(features)}")
