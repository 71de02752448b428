"""Exported networks, from the real command to a program that knows nothing of convjax."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import real_command
import safetensors.numpy
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from convjax.data import images, sources
from convjax.interop.weights import class_names
from convjax.train import weights
from convjax.train.weights import Weights

PHOTOGRAPHS = [Path(skimage.data.__file__).parent / name for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
READER = """
import sys, numpy, jax
program, pixels, logits = sys.argv[1:]
exported = jax.export.deserialize(bytearray(open(program, "rb").read()))
images = numpy.load(pixels)
numpy.savez(logits, one=exported.call(images[:1]), all=exported.call(images))
print(*exported.platforms, *(name for name in sys.modules if name.split(".")[0] in ("convjax", "flax")))
"""
"""A program that runs StableHLO with JAX alone."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of the repository's own experiment, shortened."""
    directory = tmp_path_factory.mktemp("runs") / "digits"
    flags = ["--train.length", "30 steps", "--train.evaluate-every", "15 steps", "--model.width", "8"]
    done = real_command.run("train", "experiments/digits.py", "--workdir", directory, *flags)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def exported(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the network of the run's step 15 in both forms."""
    return export_both(digits, tmp_path_factory.mktemp("exported"), "--checkpoint", "15")


def command(run: Path, file: Path, *flags: str) -> CompletedProcess[str]:
    return real_command.run("export", run, "--to", file.suffix[1:], "-o", file, *flags)


def export_both(run: Path, directory: Path, *flags: str) -> Path:
    for name in ("net.stablehlo", "net.onnx"):
        done = command(run, directory / name, *flags)
        assert done.returncode == 0, done.stderr
        assert "images: uint8 [batch, " in done.stdout
    return directory


def check(network: Weights, files: list[Path], directory: Path, tmp_path: Path) -> NDArray[np.float32]:
    """Asserts that both files have the network's logits for image files, and returns these."""
    pixels = np.stack([images.read(file, *network.image, network.crop) for file in files])
    expected = np.asarray(jax.jit(network.logits)(network.variables, pixels))
    session = onnxruntime.InferenceSession(directory / "net.onnx", providers=["CPUExecutionProvider"])
    np.save(tmp_path / "pixels.npy", pixels)
    arguments = [directory / "net.stablehlo", tmp_path / "pixels.npy", tmp_path / "logits.npz"]
    done = subprocess.run(
        [sys.executable, "-c", READER, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cpu", "cuda", "rocm", "tpu"]  # and no module of convjax or Flax
    for key, batch in {"one": 1, "all": len(pixels)}.items():
        stablehlo = np.load(tmp_path / "logits.npz")[key]
        for logits in (stablehlo, session.run(["logits"], {"images": pixels[:batch]})[0]):
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, expected[:batch], rtol=0, atol=1e-4)
    return expected


def test_a_run_on_digits_gives_its_logits_elsewhere(digits: Path, exported: Path, tmp_path: Path) -> None:
    files = []
    for i, pixels in enumerate(sources.load("digits").test.images[:5]):
        image = Image.fromarray(pixels[..., 0])
        files.append(tmp_path / f"{i}.png")
        (image.convert("RGB").resize((24, 20)) if i == 4 else image).save(files[-1])
    logits = check(weights.of(digits, 15), files, exported, tmp_path)
    # The same that the command tells a user: share and class of the likeliest, picture by picture.
    told = real_command.run("predict", digits, "--checkpoint", "15", *files).stdout.splitlines()[1::6]
    shares = np.asarray(jax.nn.softmax(logits))
    assert [line.split() for line in told] == [[f"{100 * row.max():.2f}", "%", str(row.argmax())] for row in shares]


def test_real_weights_give_their_logits_elsewhere(lite0: Path, tmp_path: Path) -> None:
    logits = check(weights.of(lite0), PHOTOGRAPHS, export_both(lite0, tmp_path), tmp_path)
    # A tabby cat is tiger cat, tabby or Egyptian cat to ImageNet.
    names = class_names(1000)
    assert names[logits[0].argmax()] in ("tiger cat", "tabby", "Egyptian cat")
    assert names[logits[1].argmax()] == "espresso"


def test_both_files_tell_how_to_use_them(digits: Path, exported: Path) -> None:
    beside = json.loads((exported / "net.stablehlo.json").read_text())
    inside = {entry.key: entry.value for entry in onnx.load(exported / "net.onnx").metadata_props}
    assert {key: value if isinstance(value, str) else json.dumps(value) for key, value in beside.items()} == inside
    assert beside["class_names"] == list("0123456789")
    assert beside["source"] == {"run": "digits", "checkpoint": "15"}
    assert beside["model"] == json.loads((digits / "config.json").read_text())["model"]
    assert beside["normalise"] == json.loads((digits / "data.json").read_text())["normalise"]
    assert sorted(p.name for p in exported.iterdir()) == ["net.onnx", "net.stablehlo", "net.stablehlo.json"]


def test_safetensors_are_those_of_weights_export(lite0: Path, tmp_path: Path) -> None:
    assert command(lite0, tmp_path / "a.safetensors").returncode == 0
    real_command.run("weights", "export", lite0, "-o", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert "conv_stem.weight" in safetensors.numpy.load_file(tmp_path / "a.safetensors")  # timm's name of the stem


def refused(done: CompletedProcess[str], code: int, *parts: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in " ".join(done.stderr.replace("│", " ").split()), done.stderr


def test_wrong_usage_is_told_and_writes_nothing(digits: Path, tmp_path: Path) -> None:
    to_onnx: list[str | Path] = ["export", digits, "--to", "onnx", "-o"]
    refused(real_command.run("export", digits, "--to", "tflite", "-o", tmp_path / "x.tflite"), 2, "'tflite'", "'onnx'")
    refused(real_command.run("export", digits, "-o", tmp_path / "x.onnx"), 2, "--to")
    refused(real_command.run("export", digits, "--to", "onnx"), 2, "--output")
    refused(real_command.run(*to_onnx, tmp_path / "x.pb"), 2, "x.pb: it must end in .onnx")
    refused(real_command.run(*to_onnx, tmp_path / "no" / "x.onnx"), 2, "there is no directory", "no")
    refused(real_command.run(*to_onnx, tmp_path / "x.onnx", "--checkpoint", "7"), 2, "7")
    refused(real_command.run("export", tmp_path / "runs", "--to", "onnx", "-o", tmp_path / "x.onnx"), 2, "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_extra(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "onnx.py").write_text("raise ModuleNotFoundError(\"No module named 'onnx'\", name='onnx')")
    arguments: list[str | Path] = ["export", digits, "--to", "onnx", "-o", tmp_path / "x.onnx"]
    done = real_command.run(*arguments, PYTHONPATH=os.fspath(tmp_path / "path"))
    refused(done, 2, "onnx", "pip install 'convjax[onnx]'")
    assert not (tmp_path / "x.onnx").exists()


def test_what_cannot_be_written_leaves_what_was_there(lite0: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    refused(command(lite0, tmp_path / "x.onnx"), 2, "x.onnx cannot be written", "directory")
    (tmp_path / "y.safetensors").write_text("before")
    (tmp_path / ".y.safetensors.tmp").symlink_to("/dev/full")  # every write fails as on a full disk
    refused(command(lite0, tmp_path / "y.safetensors"), 2, "y.safetensors cannot be written: No space left")
    assert (tmp_path / "y.safetensors").read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.onnx", "y.safetensors"]


def test_a_run_without_a_checkpoint_and_a_damaged_one(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    for file in (run / "checkpoints" / "15").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            os.truncate(file, 100)
    refused(command(run, tmp_path / "x.onnx", "--checkpoint", "15"), 1, "checkpoints/15", "damaged")
    shutil.rmtree(run / "checkpoints")
    refused(command(run, tmp_path / "x.onnx"), 2, "has no checkpoint")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
