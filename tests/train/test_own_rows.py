"""Which records each of two real processes reads from a set that stays on disk."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tfds_writer
from test_parallel import processes

from convjax.data import loader, order, splits

BATCH, STEPS = 16, 6
EXPERIMENT = f"""
import json
import os
from pathlib import Path

from tensorflow_datasets.core.data_sources.base import BaseDataSource

from convjax.models import MLP
from convjax.train.config import Config, DataConfig, TrainConfig

read = BaseDataSource.__getitems__


def told(self, numbers):
    with (Path(os.environ["READS"]) / str(os.getpid())).open("a") as file:
        file.write("".join(json.dumps([self.split, number]) + "\\n" for number in numbers))
    return read(self, numbers)


BaseDataSource.__getitems__ = told

config = Config(
    model=MLP(hidden=(8,)),
    data=DataConfig("tiny", feed="streamed"),
    train=TrainConfig(length="{STEPS} steps", batch_size={BATCH}, evaluate_every="{STEPS} steps"),
)
"""


def test_each_process_reads_only_the_rows_of_its_own_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (300, 6, 6, 1)).astype(np.uint8))
    labels = (np.arange(300) % 10).tolist()
    directory = tmp_path / "tfds"
    tfds_writer.write(directory, "tiny", {"train": (images[:240], labels[:240]), "test": (images[240:], labels[240:])})
    (tmp_path / "reads").mkdir()
    for variable, folder in (("XDG_CACHE_HOME", "cache"), ("READS", "reads"), ("TFDS_DATA_DIR", "tfds")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    # What must be known of all examples is found here, once for all processes to come.
    data = splits.load("tiny", directory=None, image_size=None, validation=0.1, lazy=True)
    file = tmp_path / "tiny.py"
    file.write_text(EXPERIMENT)
    started = processes(file, tmp_path / "run")
    output = [process.communicate(timeout=900) for process in started]
    assert [process.returncode for process in started] == [0, 0], output
    assert "reading all" not in "".join(text for both in output for text in both)

    kept, cut = order.cut(240, 0.1)
    half = BATCH // 2
    for number, process in enumerate(started):
        rows = slice(number * half, (number + 1) * half)
        expected: list[tuple[str, int]] = []
        for step in range(STEPS):
            expected += [("train", kept[i]) for i in order.batch_ids(0, step, BATCH, len(kept))[rows]]
        # Validation after the last step and, as the best checkpoint's, at the end; the test split once.
        for split, numbers, times in (("train", cut, 2), ("test", np.arange(60), 1)):
            ids, count = loader.in_order(len(numbers), BATCH)
            expected += [(split, numbers[i]) for batch in range(count) for i in ids(batch)[rows]] * times
        told = (tmp_path / "reads" / str(process.pid)).read_text().splitlines()
        assert Counter(tuple(json.loads(line)) for line in told) == Counter(expected)
    assert data.info.examples == {"train": 216, "validation": 24, "test": 60}
    info = json.loads((tmp_path / "run" / "data.json").read_text())
    assert info["fingerprint"] == data.info.fingerprint
