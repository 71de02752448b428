"""Writes small image-classification sets as TFDS prepares them, without TensorFlow."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from numpy.typing import NDArray
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2


def write(
    directory: Path, name: str, splits: dict[str, tuple[list[Any], list[int]]], *, file_names: bool = False
) -> Path:
    """Writes version 1.0.0 of a set into a TFDS data directory, and returns its folder.

    Args:
        directory: the data directory.
        name: of the set.
        splits: images and labels of each split; images are the bytes of files, or grey or colour arrays, for PNG.
        file_names: whether each example has the name of a file, as ImageNet's have, SPLIT_NUMBER.JPEG.
    """
    folder = directory / name / "1.0.0"
    folder.mkdir(parents=True)
    listed = []
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            features: dict[str, Any] = {
                "image": _bytes(image if isinstance(image, bytes) else _png(image)),
                "label": tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[label])),
            }
            if file_names:
                features["file_name"] = _bytes(f"{split}_{number}.JPEG".encode())
            example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features))
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        listed.append({"name": split, "shardLengths": [str(len(labels))], "filepathTemplate": template})
    first = next(iter(splits.values()))[0][0]
    channels = 3 if isinstance(first, bytes) else first.shape[-1]
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": listed}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    feature = "tensorflow_datasets.core.features"
    shape = {"dimensions": ["-1", "-1", str(channels)]}
    described: dict[str, Any] = {
        "image": {
            "pythonClassName": f"{feature}.image_feature.Image",
            "image": {"dtype": "uint8", "encodingFormat": "png", "shape": shape},
        },
        "label": {
            "pythonClassName": f"{feature}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "10"},
        },
    }
    if file_names:
        described["file_name"] = {"pythonClassName": f"{feature}.text_feature.Text", "text": {}}
    whole = {"pythonClassName": f"{feature}.features_dict.FeaturesDict", "featuresDict": {"features": described}}
    (folder / "features.json").write_text(json.dumps(whole))
    (folder / "label.labels.txt").write_text("".join(f"{number}\n" for number in range(10)))
    return folder


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return file.getvalue()


def _bytes(content: bytes) -> Any:
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[content]))
