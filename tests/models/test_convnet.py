from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from convjax.inspect import count
from convjax.inspect.features import features
from convjax.models import ConvNet


def test_parameters_counted_by_hand() -> None:
    # Kernels 3*3*1*4 and 3*3*4*6, scale and bias of each norm, 6 * 10 + 10 of the classifier.
    assert count.parameters(ConvNet(stage_widths=(4, 6)), (8, 8, 1)) == 36 + 216 + 8 + 12 + 70
    # Each further convolution of a stage keeps its channels; a flat head sees 4 x 4 pixels of 6 channels.
    deep = ConvNet(stage_widths=(4, 6), depth=2, kernel_size=5, head="flat")
    kernels = 25 * (1 * 4 + 4 * 4 + 4 * 6 + 6 * 6)
    assert count.parameters(deep, (8, 8, 1)) == kernels + 2 * (4 + 4 + 6 + 6) + 16 * 6 * 10 + 10


@pytest.mark.parametrize(("pool", "side"), [("max", 4), ("average", 4), ("strided", 4), ("none", 8)])
def test_images_become_half_as_large_between_stages(pool: str, side: int) -> None:
    model = ConvNet(stage_widths=(4, 6), pool=pool)  # type: ignore[arg-type]
    images = jnp.ones((2, 8, 8, 1))
    found = features(model, model.init(jax.random.key(0), images, train=False), images)
    assert found["stage1_conv1"].shape == (2, 8, 8, 4)
    assert found["stage2_conv1"].shape == (2, side, side, 6)
    assert found["head"].shape == (2, 10)


def test_it_is_what_its_fields_say_in_plain_operations() -> None:
    """Average pooling, dilation and the norm's bias, against lax alone."""
    model = ConvNet(stage_widths=(3, 5), pool="average", dilation=2, norm="none", head="flat", num_classes=4)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 2))
    variables = model.init(jax.random.key(0), images, train=False)
    x = images
    for stage in (1, 2):
        if stage == 2:
            x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        kernel = variables["params"][f"stage{stage}_conv1"]["kernel"]
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", rhs_dilation=(2, 2), dimension_numbers=numbers)
        x = jnp.maximum(x, 0)
    head = variables["params"]["head"]
    expected = x.reshape(2, -1) @ head["kernel"] + head["bias"]
    found: Any = model.apply(variables, images, train=False)
    assert jnp.allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", [{"kernel_size": 4}, {"dilation": 0}])
def test_an_even_kernel_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be odd, and at least 1"):
        ConvNet(**fields).init(jax.random.key(0), jnp.ones((1, 8, 8, 1)), train=False)  # type: ignore[arg-type]
