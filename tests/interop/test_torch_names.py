import hashlib
import json
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.errors import UsageError
from convjax.interop import layout
from convjax.interop.torch_families import Library
from convjax.interop.torch_names import from_torch, names_and_shapes, to_torch
from convjax.models import MODELS, create

STATE_DICTS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "torch_state_dicts.json").read_text())
"""Of each network in torchvision 0.29.1, timm 1.0 or tests/parity/references.py: the number of entries without counts
of batches, and the SHA-256 of the sorted lines "name shape"."""

SMALL: dict[str, dict[str, Any]] = {
    "alexnet": {"hidden": (8, 8), "num_classes": 3},
    "vgg11": {"width": 4, "hidden": (8, 8), "num_classes": 3},
    "vgg11_bn": {"width": 4, "hidden": (8, 8), "num_classes": 3},
    "googlenet": {"auxiliary_heads": True, "num_classes": 3},
    "resnet20": {},
    "resnext50_32x4d": {"stage_sizes": (1, 1), "num_classes": 3},
    "seresnet18": {"stage_sizes": (1, 1), "num_classes": 3},
    "resnetv2_164": {"stage_sizes": (1, 1)},
    "densenet_bc_100_12": {"block_sizes": (2, 2)},
    "mobilenet_v2": {"width_factor": 0.1, "num_classes": 3},
    "mobilenet_v3_small": {"width_factor": 0.1, "num_classes": 3},
    "efficientnet_b0": {"width_factor": 0.1, "num_classes": 3},
    "efficientnet_lite0": {"width_factor": 0.1, "num_classes": 3},
    "convnext_tiny": {"stage_sizes": (1, 1), "width": 8, "num_classes": 3},
    "airbench94": {},
}


def random_variables(name: str, **fields: Any) -> Any:
    """Variables no two of whose numbers are equal."""
    model = create(name, **fields)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *MODELS[name].image)), train=False))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


@pytest.mark.parametrize("case", STATE_DICTS)
def test_names_and_shapes_are_pytorchs(case: str) -> None:
    name, _, library = case.partition(" from ")
    name, _, auxiliary = name.partition(" with ")
    fields: dict[str, Any] = {"auxiliary_heads": True} if auxiliary else {}
    found = names_and_shapes(name, library=cast(Library, library) if library else None, **fields)
    lines = sorted(f"{key} {shape}" for key, shape in found.items())
    assert len(lines) == STATE_DICTS[case]["entries"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == STATE_DICTS[case]["sha256"]


@pytest.mark.parametrize(("name", "fields"), SMALL.items())
def test_out_and_in_again_is_the_identity(name: str, fields: dict[str, Any]) -> None:
    variables = random_variables(name, **fields)
    state_dict = to_torch(name, variables, **fields)
    assert {key: value.shape for key, value in state_dict.items()} == names_and_shapes(name, **fields)
    back = from_torch(name, state_dict, **fields)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    again = to_torch(name, back, **fields)
    assert again.keys() == state_dict.keys()
    for key, value in state_dict.items():
        np.testing.assert_array_equal(again[key], value)


def test_a_flattened_image_meets_the_same_weights() -> None:
    rng = np.random.default_rng(0)
    image, matrix = rng.standard_normal((3, 5, 4)), rng.standard_normal((3 * 5 * 4, 7))
    there = layout.to_torch(matrix, "flattened", 15)
    # PyTorch flattens channels first.
    np.testing.assert_allclose(there @ image.transpose(2, 0, 1).ravel(), image.ravel() @ matrix, rtol=1e-12)


def test_the_weights_of_each_kernel_go_where_pytorch_has_them() -> None:
    kernel = np.arange(3 * 5 * 2 * 7).reshape(3, 5, 2, 7)  # grouped: two channels of the input a group
    there = layout.to_torch(kernel, "usual", 1)
    assert there.shape == (7, 2, 3, 5)
    assert there[6, 1, 2, 4] == kernel[2, 4, 1, 6]
    matrix = np.arange(6).reshape(2, 3)
    assert layout.to_torch(matrix, "usual", 1)[2, 1] == matrix[1, 2]
    assert layout.to_torch(matrix, "pixel", 1)[2, 1, 0, 0] == matrix[1, 2]
    assert layout.to_torch(matrix[None, None], "linear", 1)[2, 1] == matrix[1, 2]
    assert layout.to_torch(matrix[0], "column", 1)[2, 0, 0] == matrix[0, 2]


def test_a_matrix_on_an_image_is_a_kernel_as_large() -> None:
    rng = np.random.default_rng(0)
    image, matrix = rng.standard_normal((3, 3, 4)), rng.standard_normal((3 * 3 * 4, 7))
    there = layout.to_torch(matrix, "window", 9)
    assert there.shape == (7, 4, 3, 3) == layout.torch_shape(matrix.shape, "window", 9)
    np.testing.assert_allclose(np.einsum("ochw,hwc->o", there, image), image.ravel() @ matrix, rtol=1e-12)


def test_what_does_not_fit_is_listed_by_name() -> None:
    state_dict = to_torch("resnet20", random_variables("resnet20"))
    state_dict["fc.bias"] = np.zeros(9, np.float32)
    state_dict["layer3.2.conv2.bias"] = state_dict.pop("layer3.2.conv2.weight")
    state_dict["bn1.num_batches_tracked"] = np.array(7)
    with pytest.raises(UsageError) as error:
        from_torch("resnet20", state_dict)
    message = str(error.value)
    assert "it lacks: layer3.2.conv2.weight;" in message
    assert "it should not have: layer3.2.conv2.bias;" in message
    assert "fc.bias (should be (10,), is (9,))" in message
    assert "num_batches_tracked" not in message


def test_variables_that_do_not_fit_are_listed_by_path() -> None:
    variables = random_variables("resnet20")
    del variables["params"]["head"]["dense"]["bias"]
    with pytest.raises(UsageError, match=r"variables for resnet20 .* it lacks: params/head/dense/bias$"):
        to_torch("resnet20", variables)


def test_a_scale_that_we_do_not_have_must_be_one_there() -> None:
    state_dict = to_torch("airbench94", random_variables("airbench94"))
    assert (state_dict["2.norm1.weight"] == 1).all()
    state_dict["2.norm1.weight"] *= 2
    with pytest.raises(UsageError, match=r"2\.norm1\.weight .* must be all ones"):
        from_torch("airbench94", state_dict)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mlp", {}, "no PyTorch names for models of type MLP"),
        ("resnet18", {"norm": "group"}, "has no module for '.*/group'"),
        ("resnet19", {}, "there is no model 'resnet19'"),
    ],
)
def test_models_that_pytorch_does_not_have_are_refused(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_torch(name, {}, **fields)
