import flax.linen as nn
import jax
import pytest
from small_models import one_of_each_family, small_image

from convjax.errors import UsageError
from convjax.inspect import count, summary
from convjax.inspect.summary import Layer
from convjax.models import MODELS, CifarResNet, ConvNeXt, Model

FAMILIES = one_of_each_family()


def totals(layers: list[Layer]) -> tuple[int, int, int]:
    return (
        sum(layer.parameters for layer in layers),
        sum(layer.multiply_accumulates for layer in layers),
        sum(layer.activation_bytes for layer in layers),
    )


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 1.814),
        ("resnet34", 3.664),
        ("resnet50", 4.089),
        ("densenet121", 2.834),
        ("efficientnet_b0", 0.386),
        ("convnext_tiny", 4.456),
    ],
)
def test_the_layers_sum_to_what_torchvision_publishes(name: str, published: float) -> None:
    entry = MODELS[name]
    products = sum(layer.multiply_accumulates for layer in summary.layers(entry.module, entry.image))
    assert round(products / 1e9, 3) == published


@pytest.mark.parametrize("family", FAMILIES)
def test_at_every_depth_the_layers_sum_to_the_whole(family: str) -> None:
    model, image = FAMILIES[family], small_image(family)
    every = summary.layers(model, image)
    whole = totals(every)
    assert whole[:2] == (count.parameters(model, image), count.multiply_accumulates(model, image))
    deepest = max(layer.depth for layer in every)
    for depth in range(deepest + 2):
        rows = summary.collapse(every, depth)
        assert totals(rows) == whole
        assert len({row.path for row in rows}) == len(rows)
        assert max(row.depth for row in rows) == min(depth, deepest)


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="conv")(x)
        return nn.relu(nn.Conv(4, (1, 1), use_bias=False, name="pointwise")(x))


class Outer(nn.Module):
    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        gain = self.param("gain", nn.initializers.ones, (6, 6))
        x = Inner(name="inner")(images)
        x = nn.Dropout(0.5, deterministic=not train, name="dropout")(x)
        x = x.mean(axis=(1, 2)) @ jax.numpy.ones((4, 6)) @ gain
        if train:
            x = nn.Dense(6, name="never")(x)
        return nn.Dense(10, name="head")(x)


def test_a_network_by_hand() -> None:
    every = {layer.path: layer for layer in summary.layers(Outer(), (8, 8, 2), batch=5)}
    # Own products of the model: 5 images times 4 x 6, and 6 x 6. Four bytes a number.
    assert every[""] == Layer("", "Outer", (5, 10), 36, 5 * (24 + 36), 0)
    assert every["inner"] == Layer("inner", "Inner", (5, 8, 8, 4), 0, 0, 5 * 64 * 4 * 4)
    assert every["inner/conv"] == Layer(
        "inner/conv", "Conv", (5, 8, 8, 4), 9 * 2 * 4 + 4, 5 * 64 * 9 * 2 * 4, 5 * 64 * 4 * 4
    )
    assert every["inner/pointwise"].multiply_accumulates == 5 * 64 * 16
    # It returns in evaluation mode the very array that it takes: that of `inner`.
    assert every["dropout"] == Layer("dropout", "Dropout", (5, 8, 8, 4), 0, 0, 0)
    assert every["head"] == Layer("head", "Dense", (5, 10), 70, 5 * 60, 5 * 10 * 4)
    assert list(every) == ["", "inner", "inner/conv", "inner/pointwise", "dropout", "head"]


@pytest.mark.parametrize(
    ("model", "again"),
    [
        (CifarResNet(depth=8), CifarResNet(depth=8, remat=True)),
        (ConvNeXt(stage_sizes=(1, 1), width=8), ConvNeXt(stage_sizes=(1, 1), width=8, remat=True)),
    ],
)
def test_what_is_computed_again_for_the_backward_pass_counts_once(model: Model, again: Model) -> None:
    assert summary.layers(model, (32, 32, 3)) == summary.layers(again, (32, 32, 3))


def test_the_body_of_a_scan_counts_as_often_as_it_runs() -> None:
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return nn.Dense(5, use_bias=False, name="dense")(x), None

    class Repeated(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            scan = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=7)
            return scan(name="blocks")(images.reshape(images.shape[0], -1), None)[0]

    every = summary.layers(Repeated(), (1, 5, 1))
    dense = next(layer for layer in every if layer.path == "blocks/dense")
    assert (dense.kind, dense.output, dense.parameters) == ("Dense", (1, 5), 7 * 25)
    assert totals(every)[:2] == (7 * 25, 7 * 25)


def test_a_module_that_is_called_twice_computes_twice_and_holds_its_parameters_once() -> None:
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            dense = nn.Dense(5, use_bias=False, name="dense")
            return dense(dense(images.reshape(images.shape[0], -1)))

    (_, dense) = summary.layers(Shared(), (1, 5, 1))
    assert (dense.parameters, dense.multiply_accumulates, dense.activation_bytes) == (25, 50, 40)


def test_auxiliary_heads_hold_parameters_but_are_not_called() -> None:
    every = summary.layers(FAMILIES["googlenet"], (32, 32, 3))
    heads = [row for row in summary.collapse(every, 1) if row.path.startswith("auxiliary")]
    assert len(heads) == 2
    assert all(row.output is None and row.multiply_accumulates == 0 and row.parameters > 0 for row in heads)


def test_a_size_that_a_network_refuses_is_named_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"images of 16 x 16 x 3: .*resnet\.py:\d+: .*model\.stem to cifar"):
        summary.layers(MODELS["resnet18"].module, (16, 16, 3))
