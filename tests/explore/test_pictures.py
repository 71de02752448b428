import json
import shutil
from pathlib import Path

import numpy as np

from convjax.data import splits
from convjax.explore import pictures
from convjax.train.config import DataConfig


def test_a_runs_examples_are_the_first_of_each_class_in_its_validation_split(trained: Path) -> None:
    found, note = pictures.examples(trained)
    data = splits.load("digits", directory=None, image_size=None, validation=DataConfig().validation)
    validation = data.splits["validation"]
    assert note == ""
    assert [picture.name for picture in found] == [*map(str, range(10)), "china", "flower"]
    for label in range(10):
        first = validation.images[np.flatnonzero(validation.labels == label)[0], ..., 0]
        np.testing.assert_array_equal(np.asarray(found[label].image), first)


def test_where_a_runs_data_are_no_longer_the_same_there_is_a_note(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    info = json.loads((trained / "data.json").read_text())
    info["fingerprint"]["train"] = "another"
    (tmp_path / "run" / "data.json").write_text(json.dumps(info))
    found, note = pictures.examples(tmp_path / "run")
    assert [picture.name for picture in found] == ["china", "flower", "digit 0", "digit 3", "digit 8"]
    assert "The run's own images cannot be shown: data set digits" in note


def test_without_a_run_there_are_photographs_and_digits() -> None:
    found, note = pictures.examples(None)
    assert (found[0].image.size, found[2].image.size, note) == ((640, 427), (8, 8), "")
