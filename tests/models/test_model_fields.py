from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY, leaves, one_of_each_family, small_image, variables

from convjax import ops
from convjax.errors import UsageError
from convjax.layers import Layers
from convjax.models import CifarResNet, create
from convjax.models.airbench import identity_first, whitening_kernel
from convjax.models.googlenet import AUXILIARY
from convjax.models.resnet import BasicBlock, BottleneckBlock

FAMILIES = list(one_of_each_family())


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_imagenet_stem_refuses_small_images_unless_allowed(name: str) -> None:
    with pytest.raises(ValueError, match=r"32 x 32 .* set model\.stem to cifar"):
        variables(create(name), 32, 32, 3)
    # densenet121 halves the image five times: 32 pixels are its least.
    assert "params" in variables(create(name, allow_small_images=True), 32, 32, 3)
    assert "params" in variables(create(name, stem="cifar"), 32, 32, 3)


@pytest.mark.parametrize("depth", [2, 18, 21, 51])
def test_cifar_resnet_refuses_depths_other_than_6n_plus_2(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"model\.depth is {depth}: it must be 6n \+ 2"):
        variables(CifarResNet(depth=depth), 32, 32, 3)


def test_cifar_resnet_has_as_many_weight_layers_as_its_depth() -> None:
    for depth in (8, 20, 56):
        kernels = [path for path in leaves(variables(CifarResNet(depth=depth), 32, 32, 3)) if path.endswith("kernel")]
        assert len(kernels) == depth


def test_plain_network_refuses_drop_path() -> None:
    with pytest.raises(ValueError, match=r"model\.drop_path must be 0"):
        variables(CifarResNet(shortcut="none", drop_path=0.1), 32, 32, 3)


def test_create_names_the_nearest_model_and_the_nearest_field() -> None:
    with pytest.raises(UsageError, match=r"no model 'resnet2O': did you mean .*resnet20"):
        create("resnet2O")
    with pytest.raises(UsageError, match=r"'resnet20' has no field 'widht': did you mean width\?"):
        create("resnet20", widht=8)
    with pytest.raises(UsageError, match="has no field 'parent'"):
        create("resnet20", parent=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_norm_reaches_every_place(family: str) -> None:
    def paths(norm: str) -> dict[str, Any]:
        return leaves(variables(one_of_each_family(norm=norm)[family], *small_image(family), train=True))

    batch, group, layer, none = map(paths, ("batch", "group", "layer", "none"))
    norms = [path.replace("batch_stats", "params").removesuffix("/mean") for path in batch if path.endswith("/mean")]
    assert norms
    assert [path for path in {**group, **layer, **none} if path.startswith("batch_stats")] == []
    # In a norm's place stands another one, or a bias.
    for norm in norms:
        learned = {leaf for leaf in ("scale", "bias") if f"{norm}/{leaf}" in batch}
        assert learned == ({"bias"} if family == "airbench" else {"scale", "bias"})
        assert {f"{norm}/{leaf}" for leaf in learned} <= layer.keys()
        assert {f"{norm}/group/{leaf}" for leaf in learned} <= group.keys()
        assert f"{norm}/bias" in none
        assert f"{norm}/scale" not in none
    kernels = {path for path in batch if path.endswith("kernel")}
    assert all({path for path in tree if path.endswith("kernel")} == kernels for tree in (group, layer, none))


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_reaches_every_place(family: str) -> None:
    def program(activation: str) -> str:
        model = one_of_each_family(activation=activation)[family]
        v = variables(model, *small_image(family))
        batch = jax.ShapeDtypeStruct((4, *small_image(family)), jnp.float32)
        return str(jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(v, batch))

    tanh = program("tanh")
    assert "relu" in program("relu")
    assert "relu" not in tanh
    assert tanh.count(" tanh ") == activations(family)


def activations(family: str) -> int:
    """Activations in the small networks, counted in their papers' figures."""
    return {
        "mlp": 1,
        "lenet5": 4,
        # A stem, and two after the convolutions of each of three blocks.
        "cifar A": 7,
        "cifar B": 7,
        "plain": 7,
        # A stem and two blocks of two; of three.
        "basic": 5,
        "bottleneck": 7,
        # A stem, two for each of four layers, a transition and the end; without stem norm and bottleneck one a layer.
        "densenet": 11,
        "densenet without B": 6,
        # Five convolutions and two linear layers; three and one.
        "alexnet": 7,
        "vgg": 4,
        # Three of the stem and six a module; the auxiliary heads are off in evaluation.
        "googlenet": 3 + 9 * 6,
        # A stem and two blocks of three; of three, with the one inside of squeeze-and-excitation.
        "resnext": 7,
        "se": 7,
        # Two blocks of two, or three of three, and the end.
        "v2 basic": 5,
        "v2 bottleneck": 10,
        # Stem and last, and 17 blocks of two, of which the first has one.
        "mobilenet_v2": 2 + 17 * 2 - 1,
        # Stem, last and the linear layer; 11 blocks of two, of which at a tenth of the width the first three have
        # one, since 16, 72 and 88 channels become the 8 that come in; nine times squeeze-and-excitation.
        "mobilenet_v3": 3 + 11 * 2 - 3 + 9,
        # Stem and last, and 16 blocks of two, of which the first has one; squeeze-and-excitation in each.
        "efficientnet": 2 + 16 * 2 - 1 + 16,
        "efficientnet_lite": 2 + 16 * 2 - 1,
        # One a block; one a whitening, two a group.
        "convnext": 2,
        "airbench": 5,
    }[family]


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize("stride", [1, 2])
def test_zero_init_makes_a_block_start_as_its_shortcut(
    block: type[BasicBlock] | type[BottleneckBlock], stride: int
) -> None:
    layers = Layers.build(norm="batch", activation="relu", dtype="float32", train=True)
    x = jax.random.normal(KEY, (2, 5, 5, 8))
    features = 8 * stride // block.expansion
    fields: dict[str, Any] = {"stride": stride, "shortcut": "A", "drop_path": 0.0, "train": True}
    y, started = block(layers, features, zero_init=True, **fields).init_with_output(KEY, x)
    # Option A: every other pixel, and zeros in the channels that are new.
    expected = np.pad(np.maximum(x[:, ::stride, ::stride], 0), ((0, 0),) * 3 + ((0, 8 * stride - 8),))
    np.testing.assert_array_equal(y, expected)
    # The branch is alive, only silenced: with scales of one it changes the output.
    params = jax.tree.map(jnp.array, started["params"])
    params["norm_last"]["scale"] = jnp.ones_like(params["norm_last"]["scale"])
    z, _ = block(layers, features, zero_init=True, **fields).apply(
        {**started, "params": params}, x, mutable=["batch_stats"]
    )
    assert np.abs(z - expected).max() > 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "none", "zero_init": True}, r"model\.zero_init needs a norm"),
        ({"shortcut": "none", "drop_path": 0.1}, r"model\.drop_path must be 0"),
    ],
)
def test_fields_that_would_silently_do_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variables(CifarResNet(depth=8, width=4, **fields), 8, 8, 1)


@pytest.mark.parametrize("fields", [{"groups": 32}, {"group_width": 128}])
def test_basic_blocks_have_neither_groups_nor_another_width(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"need model\.block to be bottleneck"):
        variables(create("resnet18", **fields), 64, 64, 3)


def test_auxiliary_heads_give_logits_in_training_alone() -> None:
    model = create("googlenet", auxiliary_heads=True, num_classes=7)
    v, batch = variables(model, 64, 64, 3), jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)

    def shapes(train: bool) -> Any:
        def apply(v: Any, x: jax.Array) -> Any:
            return model.apply(v, x, train=train, rngs={"dropout": KEY}, mutable=["batch_stats", AUXILIARY])[1]

        return [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(apply, v, batch).get(AUXILIARY, {}))]

    assert shapes(train=True) == [(4, 7), (4, 7)]
    assert shapes(train=False) == []
    assert "auxiliary_logits" not in variables(model, 64, 64, 3, train=True)


def test_whitening_kernel_makes_patches_uncorrelated() -> None:
    rng = np.random.default_rng(0)
    # Neighbouring pixels and channels that go together, as in photographs.
    mixed = rng.standard_normal((40, 20, 20, 3)) @ np.array([[1, 0.8, 0.6], [0, 0.5, 0.3], [0, 0, 0.4]])
    images = jnp.asarray(mixed + np.roll(mixed, 1, axis=1) + np.roll(mixed, 1, axis=2), jnp.float32)
    kernel = whitening_kernel(images, epsilon=0.0)
    outputs = ops.conv2d(images, kernel, padding="VALID").reshape(-1, 24)
    second_moments = np.asarray(outputs.T @ outputs) / len(outputs)
    one = np.eye(12)
    # Sums of 14,440 products of order one, divided by their number; small eigenvalues amplify their rounding.
    np.testing.assert_allclose(second_moments, np.block([[one, -one], [-one, one]]), atol=1e-3)


def test_identity_first_repeats_the_inputs() -> None:
    kernel = identity_first(KEY, (3, 3, 4, 6))
    x = jax.random.normal(KEY, (1, 5, 5, 4))
    np.testing.assert_array_equal(ops.conv2d(x, kernel, padding=1)[..., :4], x)
    # The other outputs are uniform up to 1 / sqrt(36).
    assert 0.1 < float(jnp.abs(kernel[..., 4:]).max()) <= 1 / 6


def test_layer_scale_starts_each_branch_near_zero() -> None:
    model = create("convnext_tiny", stage_sizes=(1,), width=8)
    scale = model.init(KEY, jnp.zeros((1, 32, 32, 3)), train=False)["params"]["stage1_block1"]["layer_scale"]["scale"]
    np.testing.assert_array_equal(scale, np.full(8, 1e-6, np.float32))
    assert not [p for p in leaves(variables(create("convnext_tiny", layer_scale=0.0), 64, 64, 3)) if "layer_scale" in p]
