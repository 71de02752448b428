"""What tests of kernels share."""

from collections.abc import Iterator

import pytest
from compiling import need_native

from convjax.ops import cpu


@pytest.fixture(params=["pure", "native"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kind of kernels, switched on."""
    if request.param == "native":
        need_native()
    with cpu.switched_on(request.param):
        yield request.param
