"""A folder of images, from a look at it to predictions, through the real command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_command import Command

EXPERIMENT = """
from convjax.data.augment import Augment, HorizontalFlip
from convjax.data.images import Crop
from convjax.data.random_crop import ResizedCrop
from convjax.models import MLP
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig

config = Config(
    model=MLP(num_classes=2, hidden=(8,)),
    data=DataConfig(
        "./photos",
        image_size=16,
        feed="streamed",
        crop=Crop(0.875),
        resized_crop=ResizedCrop((0.08, 1.0)),
        augment=Augment(flip=HorizontalFlip(0.5)),
    ),
    optim=OptimConfig(schedule="constant"),
    train=TrainConfig(length="12 steps", batch_size=16, evaluate_every="5 steps", log_every=1),
)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an experiment and a folder of dark and bright images of many sizes, one of them broken."""
    root = tmp_path_factory.mktemp("home")
    (root / "mine.py").write_text(EXPERIMENT)
    rng = np.random.default_rng(0)
    for label, brightness in (("dark", 60), ("bright", 190)):
        (root / "photos" / label).mkdir(parents=True)
        for i in range(50):
            pixels = np.clip(rng.normal(brightness, 30, (*rng.integers(20, 60, 2), 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / label / f"{i}.{('jpg', 'png', 'webp')[i % 3]}")
    (root / "photos" / "dark" / "0.jpg").write_bytes(b"\xff\xd8\xff")
    return root


def test_a_folder_is_shown_trained_on_evaluated_and_predicted(
    convjax: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    refused = convjax("data", "./photos", "--image-size", "16", cwd=home)
    assert refused.returncode == 2
    assert "1 of 100 images are broken, data.broken_limit is 0" in refused.stderr
    assert "photos/dark/0.jpg: the image is damaged or truncated" in refused.stderr
    shown = convjax("data", "./photos", "--image-size", "16", "--broken-limit", "1", cwd=home)
    assert shown.returncode == 0, shown.stderr
    assert "2 classes, images 16 x 16 x 3" in shown.stdout
    assert (home / "photos.png").is_file()
    flags = ("--data.broken-limit", "1")
    done = convjax("train", "mine.py", "--workdir", "whole", *flags, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "the steps waited" in done.stdout
    assert "1 of 100 images are broken and left out" in done.stderr

    # Five steps of 16 of about 72 images: the second epoch has begun, and goes on in another process.
    short = ("--workdir", "halves", *flags)
    done = convjax("train", "mine.py", *short, "--train.length", "5 steps", cwd=home)
    assert done.returncode == 0, done.stderr
    done = convjax("train", "mine.py", *short, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "going on from step 5 of 12" in done.stdout
    for file in ("metrics.jsonl", "result.json"):
        assert (home / "halves" / file).read_bytes() == (home / "whole" / file).read_bytes()

    evaluated = convjax("eval", "whole", "--json", cwd=home)
    assert evaluated.returncode == 0, evaluated.stderr
    result = json.loads((home / "whole" / "result.json").read_text())
    assert json.loads(evaluated.stdout)["loss"] == pytest.approx(result["test"]["loss"], rel=1e-6)
    assert result["test"]["accuracy"] > 0.9
    predicted = convjax("predict", "whole", "photos/bright/1.png", cwd=home)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.splitlines()[1].split()[-1] == "bright"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--data.feed", "resident"), "data.feed is resident: it must be streamed with resized_crop"),
        (
            ("--data.image-size", "None", "--data.crop.share", "1"),
            "data.image_size is None: data.resized_crop needs the side",
        ),
        (("--data.name", "digits", "--data.crop.share", "1"), "digits has no larger images to cut from"),
        (("--data.resized-crop.area", "None", "--data.name", "digits"), "digits is seen whole"),
        (("--data.resized-crop.area", "None", "--data.image-size", "None"), "it must be 1 without image_size"),
        (("--data.name", "./photoz"), "there is no photoz"),
    ],
)
def test_what_does_not_fit_is_told(convjax: Command, home: Path, flags: tuple[str, ...], message: str) -> None:
    done = convjax("train", "mine.py", "--workdir", "none", *flags, cwd=home)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (home / "none").exists()
