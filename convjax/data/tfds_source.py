"""Image-classification sets prepared by TensorFlow Datasets, read without TensorFlow."""

import contextlib
import dataclasses
import functools
import io
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from convjax.data import order
from convjax.data.images import fit, permuted
from convjax.data.records import Records
from convjax.data.sources import Source, Split, unknown
from convjax.errors import UsageError

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.\-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_TEST_SHARE = 0.2
"""Share of a set without a test split that becomes one."""
_DECODING = 1
"""Counts up when the same records come to be decoded to other pixels."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A prepared set whose images are still on disk.

    Attributes:
        name: as it was asked for.
        version: its version.
        class_names: name of each class.
        train: the train split.
        test: the test split.
        identity: stands for what the set's files hold, as far as names, sizes and times tell, and for how they are
            decoded.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    train: Records
    test: Records
    identity: str


def load(
    name: str, *, directory: str | None, image_size: int | None, examples: int | None, permute_pixels: int | None
) -> Source:
    """Reads a prepared TFDS set; see `convjax.data.sources.load`."""
    opened = open_records(
        name, directory=directory, image_size=image_size, examples=examples, permute_pixels=permute_pixels
    )
    train, test = Split(*opened.train.whole()), Split(*opened.test.whole())
    return Source(opened.name, opened.version, opened.class_names, train, test)


def open_records(
    name: str,
    *,
    directory: str | None,
    image_size: int | None,
    examples: int | None = None,
    permute_pixels: int | None = None,
) -> Opened:
    """Opens a prepared TFDS set without reading its examples; see `convjax.data.sources.load`.

    Its test split is what TFDS calls test, else validation, else a fifth of train by a fixed rule.
    """
    folder = find(name, directory)
    tfds = _import_tfds()
    try:
        builder = tfds.builder_from_directory(folder)
        image_key, label_key = _feature_keys(tfds, name, builder.info)
        label = builder.info.features[label_key]
        decode = functools.partial(
            _decode,
            image_key=image_key,
            label_key=label_key,
            mode="L" if builder.info.features[image_key].shape[-1] == 1 else "RGB",
            image_size=image_size,
            permute_pixels=permute_pixels,
        )
        splits = {
            split: Records(
                f"data set {name!r} in {folder}",
                builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()}),
                decode,
            )
            for split in ("train", "test", "validation")
            if split in builder.info.splits and (split != "validation" or "test" not in builder.info.splits)
        }
    except UsageError:
        raise
    except Exception as error:  # TFDS, protobuf and ArrayRecord each raise their own
        raise UsageError(f"data set {name!r} in {folder} cannot be read: {error}") from error
    if "train" not in splits:
        raise UsageError(f"data set {name!r} has no train split, only {sorted(builder.info.splits)}")
    train, test = splits["train"], splits.get("test", splits.get("validation"))
    if test is None:
        kept, cut = order.cut(len(train), _TEST_SHARE)
        train, test = train.part(kept), train.part(cut)
    if examples is not None:
        train = train.part(order.part(name, len(train), examples))
    return Opened(name, str(builder.version), tuple(label.names), train, test, _identity(folder))


def _identity(folder: Path) -> str:
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir())
    return f"{folder.resolve()} {files} Pillow {PIL.__version__} {_DECODING}"


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


def _decode(
    record: dict[str, Any],
    *,
    image_key: str,
    label_key: str,
    mode: str,
    image_size: int | None,
    permute_pixels: int | None,
) -> tuple[NDArray[np.uint8], int]:
    image = Image.open(io.BytesIO(record[image_key])).convert(mode)
    if image_size is not None:
        image = fit(image, (image_size, image_size))
    pixels = np.asarray(image, np.uint8)
    if mode == "L":
        pixels = pixels[..., None]
    if permute_pixels is not None:
        pixels = permuted(pixels, permute_pixels)
    return pixels, int(record[label_key])
