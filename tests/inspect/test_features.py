import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY, one_of_each_family, small_image

import convjax
from convjax.errors import UsageError
from convjax.layers import ClassifierHead, ConvNormAct
from convjax.models import MODELS, CifarResNet, create
from convjax.models.resnet import BasicBlock

BATCH = jax.random.normal(KEY, (3, 32, 32, 3))


def shapes(name: str, **fields: Any) -> dict[str, tuple[int, ...]]:
    model = create(name, **fields)
    images = jax.ShapeDtypeStruct((2, *MODELS[name].image), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(KEY, x, train=False), images)
    found = jax.eval_shape(lambda v, x: convjax.features(model, v, x), variables, images)
    return {key: value.shape for key, value in found.items()}


def test_the_stages_of_resnet50_have_the_papers_sizes_and_stand_in_order() -> None:
    # He et al. 2015, table 1: 112, 56, 28, 14 and 7 pixels; 3, 4, 6 and 3 blocks.
    expected: dict[str, tuple[int, ...]] = {"stem": (2, 112, 112, 64)}
    sizes = {1: (56, 256, 3), 2: (28, 512, 4), 3: (14, 1024, 6), 4: (7, 2048, 3)}
    for stage, (pixels, channels, blocks) in sizes.items():
        names = [f"stage{stage}_block{i}" for i in range(1, blocks + 1)]
        expected |= dict.fromkeys([*names, f"stage{stage}"], (2, pixels, pixels, channels))
    expected["head"] = (2, 1000)
    found = shapes("resnet50")
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("name", "part", "shape"),
    [
        # Tables 1 of arXiv:1608.06993 (what enters each transition), 1905.11946 (B0), 1801.04381 and 2201.03545.
        ("densenet121", "block3", (2, 14, 14, 1024)),
        ("densenet121", "transition1", (2, 28, 28, 128)),
        ("efficientnet_b0", "stage5", (2, 14, 14, 112)),
        ("mobilenet_v2", "stage7", (2, 7, 7, 320)),
        ("convnext_tiny", "stage3", (2, 14, 14, 384)),
        ("googlenet", "inception4e", (2, 14, 14, 832)),
        ("vgg16", "stage3_norm3", (2, 56, 56, 256)),
        ("mobilenet_v3_large", "block15", (2, 7, 7, 160)),
        ("airbench94", "group3", (2, 3, 3, 256)),
        ("lenet5", "c3", (2, 10, 10, 16)),
    ],
)
def test_other_families_have_their_papers_sizes(name: str, part: str, shape: tuple[int, ...]) -> None:
    assert shapes(name)[part] == shape


def test_values_are_those_of_the_submodules_run_by_hand() -> None:
    model = CifarResNet(depth=8, width=4)
    variables = jax.tree.map(lambda x: x + 0.1, model.init(KEY, BATCH, train=False))
    layers = model.layers(train=False)

    def part(module: nn.Module, name: str, x: Any) -> Any:
        return module.apply({kind: variables[kind].get(name, {}) for kind in variables}, x)

    found = convjax.features(model, variables, BATCH)
    x = part(ConvNormAct(layers, 4), "stem", BATCH)
    np.testing.assert_array_equal(found["stem"], x)
    for stage in (1, 2, 3):
        block = BasicBlock(layers, 4 * 2 ** (stage - 1), min(stage, 2), "A", False, 0.0, False)
        x = part(block, f"stage{stage}_block1", x)
        np.testing.assert_array_equal(found[f"stage{stage}_block1"], x)
        np.testing.assert_array_equal(found[f"stage{stage}"], x)
    logits = part(ClassifierHead(10, False), "head", x)
    np.testing.assert_array_equal(found["head"], logits)
    np.testing.assert_array_equal(model.apply(variables, BATCH, train=False), logits)


@pytest.mark.parametrize("family", ["cifar B", "densenet", "convnext"])
def test_features_of_a_batch_are_those_of_its_images(family: str) -> None:
    model = one_of_each_family()[family]
    images = jax.random.normal(KEY, (3, *small_image(family)))
    variables = model.init(KEY, images, train=False)
    compiled = jax.jit(lambda v, x: convjax.features(model, v, x))
    together, alone = compiled(variables, images), [compiled(variables, image[None]) for image in images]
    for name, output in together.items():
        single = np.concatenate([each[name] for each in alone])
        np.testing.assert_allclose(output, single, rtol=1e-5, atol=1e-5 * np.abs(single).max())


def test_blocks_that_are_recomputed_show_the_same_features() -> None:
    kept, recomputed = (CifarResNet(depth=8, width=4, remat=remat) for remat in (False, True))
    variables = kept.init(KEY, BATCH, train=False)
    found = [convjax.features(model, variables, BATCH, depth=2) for model in (kept, recomputed)]
    assert list(found[0]) == list(found[1])
    jax.tree.map(np.testing.assert_array_equal, *found)


class Twice(nn.Module):
    """A user's own: one layer used twice, one without a name, one that is set up; the first alone is a stage."""

    def setup(self) -> None:
        self.shared = nn.Dense(5)
        self.body_block1 = nn.Dense(5)
        self.net2_block1 = nn.Dense(5)
        self.net2_block2 = nn.Sequential([nn.Dense(7), nn.Dense(3)])

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = self.body_block1(self.shared(self.shared(images.reshape(len(images), -1))))
        return self.net2_block2(self.net2_block1(x)) + 1


def test_a_users_own_module_needs_no_change() -> None:
    model = Twice()
    images = jnp.arange(20.0).reshape(2, 5, 2, 1)[:, :, :1]
    variables = model.init(KEY, images, train=False)
    found = convjax.features(model, variables, images)
    assert list(found) == ["shared", "shared#2", "body_block1", "net2_block1", "net2_block2", "net2"]
    kernel, bias = variables["params"]["shared"]["kernel"], variables["params"]["shared"]["bias"]
    first = images.reshape(2, 5) @ kernel + bias
    np.testing.assert_allclose(found["shared"], first, rtol=1e-6)
    np.testing.assert_allclose(found["shared#2"], first @ kernel + bias, rtol=1e-5)
    logits: Any = model.apply(variables, images, train=False)
    np.testing.assert_allclose(found["net2"] + 1, logits, rtol=1e-6)
    deeper = convjax.features(model, variables, images, depth=2)
    assert deeper["net2_block2/layers_0"].shape == (2, 7)
    with pytest.raises(UsageError, match="depth is 0: it must be at least 1"):
        convjax.features(model, variables, images, depth=0)


def test_a_part_that_is_called_as_a_stage_keeps_its_name() -> None:
    class Own(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            return nn.Dense(4, name="stage1")(nn.Dense(3, name="stage1_block1")(images))

    found = convjax.features(Own(), Own().init(KEY, jnp.ones((1, 2)), train=False), jnp.ones((1, 2)))
    assert {name: output.shape for name, output in found.items()} == {"stage1_block1": (1, 3), "stage1": (1, 4)}


def test_importing_convjax_does_not_import_jax() -> None:
    code = "import sys, convjax; assert 'jax' not in sys.modules; convjax.features; assert 'jax' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'convjax' has no attribute 'feature'"):
        convjax.feature  # noqa: B018
