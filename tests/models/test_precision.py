"""Twenty steps in float32, bfloat16 and float16: nothing that is not finite, and losses near float32's."""

import pytest
from precision import train

from convjax.models import MODELS

FAST = ("mlp", "lenet5", "resnet20")
CASES = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in MODELS]


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_in_each_precision(name: str) -> None:
    found = train(name)
    assert found.losses["float32"][-1] < found.losses["float32"][0], "twenty steps must learn something"
    assert found.far() == []
    # Once more, since float16 goes its own way.
    assert found.overflows <= found.halvings() + 1
