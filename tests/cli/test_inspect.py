import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_command import Command

EXPERIMENT = """
from convjax.models import LeNet5
from convjax.train.config import Config, DataConfig, TrainConfig

config = Config(
    model=LeNet5(pool="max"),
    data=DataConfig("digits", validation=0.0),
    train=TrainConfig(length="3 steps", batch_size=50),
)
"""


@pytest.fixture(scope="module")
def convolutional(convjax: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inspect")
    (directory / "small.py").write_text(EXPERIMENT)
    done = convjax("train", "small.py", "--workdir", "run", cwd=directory)
    assert done.returncode == 0, done.stderr
    for name, value in (("black", 0), ("white", 255)):
        Image.fromarray(np.full((20, 20), value, np.uint8)).save(directory / f"{name}.png")
    return directory


def test_every_picture_is_written_and_listed(convjax: Command, convolutional: Path) -> None:
    flags = ["--layers", "c3", "--channels", "2", "--examples", "60", "--class", "7", "-o", "pictures"]
    done = convjax("inspect", "run", "white.png", *flags, cwd=convolutional)
    assert done.returncode == 0, done.stderr
    of_image = ["features-c3", "gradient", "smoothgrad", "integrated", "occlusion", "gradcam", "gradcam++"]
    expected = [*(f"white-{name}.png" for name in of_image), "exciting-c3.png", "filters.png", "optimised-c3.png"]
    listed = re.findall(r"^  (\S+\.png)  \S", done.stdout, re.MULTILINE)
    assert listed == expected
    assert sorted(path.name for path in (convolutional / "pictures").iterdir()) == sorted(expected)
    for name in expected:
        with Image.open(convolutional / "pictures" / name) as picture:
            assert picture.convert("L").getextrema()[0] != picture.convert("L").getextrema()[1], name
    assert done.stdout.count("'7' (probability 0.") == 6
    assert "of 60 images that excite the first 2 channels of c3" in done.stdout
    assert done.stdout.splitlines()[-1] == "10 pictures"


def test_images_of_one_name_do_not_overwrite_each_other(convjax: Command, convolutional: Path) -> None:
    (convolutional / "other").mkdir()
    (convolutional / "other" / "white.png").write_bytes((convolutional / "black.png").read_bytes())
    flags = ["--methods", "gradient", "-o", "two"]
    done = convjax("inspect", "run", "white.png", "other/white.png", *flags, cwd=convolutional)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (convolutional / "two").iterdir())
    assert names == ["1-white-gradient.png", "2-white-gradient.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["white.png", "--methods", "gradcan"], "there is no method 'gradcan': did you mean gradcam"),
        (["--methods", "filters", "gradcam"], "method gradcam needs image files"),
        (["white.png", "--class", "12"], "there is no class '12': "),
        (["white.png", "--layers", "stage*"], "--layers 'stage*' matches no layer that returns images: known are: c1"),
        (["white.png", "--channels", "0"], "--channels is 0: it must be at least 1"),
        (["none.png"], "none.png: there is no such file"),
        (["--methods", "exciting", "--split", "validation"], "the run has no such split, data.validation is 0"),
        (["white.png", "--methods", "filters", "-o", "small.py"], "--out small.py cannot be made"),
        (["white.png", "--checkpoint", "2"], "there is no checkpoint of step 2"),
    ],
)
def test_wrong_usage_is_told(convjax: Command, convolutional: Path, arguments: list[str], message: str) -> None:
    done = convjax("inspect", "run", *arguments, cwd=convolutional)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_without_images_inside_shows_its_filters_alone(
    convjax: Command, trained: Path, convolutional: Path, tmp_path: Path
) -> None:
    done = convjax("inspect", trained, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "inspect-tiny").iterdir()] == ["filters.png"]
    done = convjax("inspect", trained, convolutional / "white.png", "--methods", "gradcam", "gradcam++", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing to draw for gradcam, gradcam++: the network has no layer" in done.stderr
