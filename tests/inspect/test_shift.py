import json
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from real_command import Command

from convjax.errors import UsageError
from convjax.inspect import shift
from convjax.train.evaluate import Trained, load_same_data
from convjax.train.run import Run

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 2)).astype(np.uint8)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 0), (-1, 0), (0, 3), (0, -3), (-2, 1)])
def test_images_are_moved_as_scipy_moves_them(rows: int, columns: int) -> None:
    expected = scipy.ndimage.shift(IMAGES, (0, rows, columns, 0), order=0, mode="constant", cval=0)
    np.testing.assert_array_equal(shift.shifted(IMAGES, rows, columns), expected)


def test_the_command_says_what_shifted_images_do(trained: Path, convjax: Command) -> None:
    done = convjax("eval", trained, "--shift", "2", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["pixels"] for row in rows] == [0, 1, 2]
    plain = json.loads(convjax("eval", trained, "--json").stdout)
    assert rows[0]["accuracy"] == pytest.approx(plain["accuracy"])
    assert rows[0]["agreement"] == 1
    # By hand: the mean over four directions of what the network says to moved images.
    run = Run(trained)
    network = Trained.read(run, "best")
    test = load_same_data(network.config, network.info, run).splits["test"]
    images = np.asarray(test.images)
    right, same = [], []
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    start = network.scores(test).prediction
    for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
        window = padded[:, top : top + 8, left : left + 8]
        answers = network.scores(type(test)(window, test.labels)).prediction
        right.append((answers == test.labels).mean())
        same.append((answers == start).mean())
    assert rows[1]["accuracy"] == pytest.approx(np.mean(right))
    assert rows[1]["agreement"] == pytest.approx(np.mean(same))
    with pytest.raises(UsageError, match="--shift is 8: it must be from 0 to 7"):
        shift.curve(network, test, 8)


def test_a_shift_over_the_image_is_refused(trained: Path, convjax: Command) -> None:
    done = convjax("eval", trained, "--shift", "99")
    assert done.returncode == 2
    assert "--shift is 99: it must be from 0 to 7" in done.stderr
