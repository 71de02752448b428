"""Image-classification sets prepared by TensorFlow Datasets, read without TensorFlow."""

import contextlib
import io
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convjax.data import order
from convjax.data.images import fit
from convjax.data.sources import Source, Split, unknown
from convjax.errors import UsageError

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.\-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_TEST_SHARE = 0.2
"""Share of a set without a test split that becomes one."""


def load(name: str, *, directory: str | None, image_size: int | None) -> Source:
    """Reads a prepared TFDS set; see `convjax.data.sources.load`."""
    folder = find(name, directory)
    tfds = _import_tfds()
    try:
        builder = tfds.builder_from_directory(folder)
        image_key, label_key = _feature_keys(tfds, name, builder.info)
        label = builder.info.features[label_key]
        channels = builder.info.features[image_key].shape[-1] or 3
        splits = {
            split: _decode(tfds, builder, split, image_key, label_key, channels, image_size)
            for split in ("train", "test", "validation")
            if split in builder.info.splits and (split != "validation" or "test" not in builder.info.splits)
        }
    except UsageError:
        raise
    except Exception as error:  # TFDS, protobuf, ArrayRecord and Pillow each raise their own
        raise UsageError(f"data set {name!r} in {folder} cannot be read: {error}") from error
    if "train" not in splits:
        raise UsageError(f"data set {name!r} has no train split, only {sorted(builder.info.splits)}")
    train, test = splits["train"], splits.get("test", splits.get("validation"))
    if test is None:
        kept, cut = order.cut(len(train), _TEST_SHARE)
        train, test = train.take(kept), train.take(cut)
    return Source(name, str(builder.version), tuple(label.names), train, test)


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
    tfds: Any, builder: Any, split: str, image_key: str, label_key: str, channels: int, image_size: int | None
) -> Split:
    """Reads and decodes a whole split."""
    records = builder.as_data_source(split, decoders={image_key: tfds.decode.SkipDecoding()})
    mode = "L" if channels == 1 else "RGB"

    def read(span: range) -> list[tuple[NDArray[np.uint8], int]]:
        return [_decode_one(r, image_key, label_key, mode, image_size) for r in records.__getitems__(span)]

    spans = [range(i, min(i + 500, len(records))) for i in range(0, len(records), 500)]
    with ThreadPoolExecutor() as pool:
        examples = [example for chunk in pool.map(read, spans) for example in chunk]
    shapes = {image.shape for image, _ in examples}
    if len(shapes) != 1:
        raise UsageError(
            f"the images of {builder.name!r} have {len(shapes)} different shapes: "
            "set data.image_size to the side in pixels that they are to have"
        )
    labels = np.array([label for _, label in examples], np.int32)
    if (labels < 0).any():
        raise UsageError(f"the {split} split of {builder.name!r} has examples without a label")
    return Split(np.stack([image for image, _ in examples]), labels)


def _decode_one(
    record: dict[str, Any], image_key: str, label_key: str, mode: str, image_size: int | None
) -> tuple[NDArray[np.uint8], int]:
    image = Image.open(io.BytesIO(record[image_key])).convert(mode)
    if image_size is not None:
        image = fit(image, (image_size, image_size))
    pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if mode == "L" else pixels, int(record[label_key])
