"""What a step has to compute and to move, against counts by hand and the laws of gradients."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from convjax.inspect import count, summary
from convjax.models import CifarResNet
from convjax.ops import cpu
from convjax.profile.work import Part, Work, part, works


def products(function: Callable[..., Any], *arguments: Any) -> int:
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return sum(times * count.products(equation) for equation, times, _ in count.equations(jaxpr))


@pytest.mark.parametrize(
    ("window", "options", "groups"),
    [
        (3, {}, 1),
        (3, {"window_strides": (2, 2)}, 1),
        (1, {"window_strides": (2, 2)}, 1),
        (5, {"window_strides": (1, 2), "padding": ((2, 2), (1, 2))}, 1),
        (3, {"rhs_dilation": (2, 2)}, 1),
        (3, {"window_strides": (2, 2)}, 4),
        (3, {"window_strides": (2, 1)}, 8),
    ],
)
def test_both_gradients_of_a_convolution_cost_what_it_costs(window: int, options: dict[str, Any], groups: int) -> None:
    x, kernel = jnp.zeros((2, 8, 8, 8)), jnp.zeros((window, window, 8 // groups, 16))

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            **{"window_strides": (1, 1), "padding": "SAME", **options},
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    forward = products(convolve, x, kernel)
    output = jax.eval_shape(convolve, x, kernel)
    assert forward == output.size * window**2 * 8 // groups
    assert products(jax.vjp(convolve, x, kernel)[1], jnp.zeros(output.shape)) == 2 * forward


def test_a_transposed_convolution_counts_each_pixel_with_each_tap() -> None:
    # As fvcore counts it: pixels that go in, not those that come out.
    layer = nn.ConvTranspose(5, (3, 3), strides=(2, 2))
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    assert products(layer.apply, variables, jnp.zeros((2, 4, 4, 3))) == 2 * 16 * 9 * 3 * 5


class Two(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(2, name="second")(nn.relu(nn.Dense(3, use_bias=False, name="first")(x)))


def named(function: Callable[..., Any], *arguments: Any) -> dict[Part, Work]:
    with nn.intercept_methods(summary.naming({})):
        return works(jax.make_jaxpr(function)(*arguments).jaxpr)


def loss_of(model: nn.Module, variables: Any, images: jax.Array) -> Callable[[Any], jax.Array]:
    """Returns the sum of a network's logits in training mode, as a function of its parameters."""

    def loss(params: Any) -> jax.Array:
        logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.sum(logits)

    return loss


def test_bytes_by_hand() -> None:
    model, x = Two(), jnp.zeros((7, 5))
    params = model.init(jax.random.key(0), x)
    found = named(model.apply, params, x)
    # Of float32: what goes in, the kernel, what comes out. The bias is added without another way to memory.
    assert found[Part("first", "", "forward")] == Work(7 * 5 * 3, 4 * (7 * 5 + 5 * 3 + 7 * 3))
    assert found[Part("second", "", "forward")] == Work(7 * 3 * 2, 4 * (7 * 3 + 3 * 2 + 2 + 7 * 2))
    # The model's own: the activation between both.
    assert found[Part("", "", "forward")] == Work(0, 4 * 2 * 7 * 3)


def test_what_two_others_read_is_written_once_and_read_by_each() -> None:
    class Forked(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            y = nn.Dense(3, use_bias=False, name="first")(x)
            return nn.Dense(3, use_bias=False, name="second")(y) + y

    model, x = Forked(), jnp.zeros((7, 5))
    found = named(model.apply, model.init(jax.random.key(0), x), x)
    assert found[Part("first", "", "forward")] == Work(7 * 5 * 3, 4 * (7 * 5 + 5 * 3 + 7 * 3))
    assert found[Part("", "", "forward")] == Work(0, 4 * 3 * 7 * 3)


def test_the_work_of_a_training_step_is_three_times_that_of_the_network_but_for_the_images_gradient() -> None:
    model, images = CifarResNet(depth=8, width=4), jnp.zeros((2, 16, 16, 3))
    variables = model.init(jax.random.key(0), images, train=False)

    found = named(jax.grad(loss_of(model, variables, images)), variables["params"])
    forward = {p: w.multiply_accumulates for p, w in found.items() if p.direction == "forward"}
    backward = {p: w.multiply_accumulates for p, w in found.items() if p.direction == "backward"}
    network = 2 * count.multiply_accumulates(model, (16, 16, 3))
    stem = forward[Part("stem/conv", "", "forward")]
    assert stem == 2 * 16 * 16 * 9 * 3 * 4
    assert sum(forward.values()) == network
    assert sum(backward.values()) == 2 * network - stem
    with cpu.switched_on("pure"):  # a matter of lowering, which changes nothing in what there is to do
        assert named(jax.grad(loss_of(model, variables, images)), variables["params"]) == found


def test_what_is_computed_again_belongs_to_the_way_back() -> None:
    images = jnp.zeros((2, 16, 16, 3))

    def found(model: CifarResNet) -> dict[str, int]:
        variables = model.init(jax.random.key(0), images, train=False)
        sums = {"forward": 0, "backward": 0}
        for owner, work in named(jax.grad(loss_of(model, variables, images)), variables["params"]).items():
            sums[owner.direction] += work.multiply_accumulates
        return sums

    plain, again = found(CifarResNet(depth=8, width=4)), found(CifarResNet(depth=8, width=4, remat=True))
    assert again["forward"] == plain["forward"]
    assert plain["backward"] < again["backward"] <= plain["backward"] + plain["forward"]


def test_the_body_of_a_scan_works_as_often_as_it_runs() -> None:
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return nn.Dense(5, use_bias=False, name="dense")(x), None

    class Repeated(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            scan = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=7)
            return scan(name="blocks")(x, None)[0]

    x = jnp.zeros((2, 5))
    model = Repeated()
    dense = named(model.apply, model.init(jax.random.key(0), x), x)[Part("blocks/dense", "", "forward")]
    # Each time the array in, a kernel, the array out.
    assert dense == Work(7 * 2 * 25, 7 * 4 * (10 + 25 + 10))


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("jit(advance)/jvp(CifarResNet)/inside:/stem/inside:stem/conv/inside:stem|conv/conv_general_dilated",
         Part("stem/conv", "", "forward")),
        ("jit(advance)/transpose(jvp(inside:))/head/inside:head/mul", Part("head", "", "backward")),
        ("jit(advance)/jvp(inside:)/Net/checkpoint/rematted_computation/inside:a|b/mul", Part("a/b", "", "backward")),
        ("jit(advance)/inside:/add", Part("", "", "forward")),
        ("jit(advance)/optimizer/mul", Part(None, "optimizer", "forward")),
        ("jit(advance)/jvp(normalise)/div", Part(None, "normalise", "forward")),
        ("jit(advance)/vmap(augment)/gather", Part(None, "augment", "forward")),
        ("jit(advance)/my_optimizer/mul", Part(None, "rest", "forward")),
        ("", Part(None, "rest", "forward")),
    ],
)  # fmt: skip
def test_an_operation_is_known_by_its_scope(scope: str, expected: Part) -> None:
    assert part(scope) == expected
