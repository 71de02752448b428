"""How arrays go to the page: bit for bit, not as decimal numbers."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray


def array(values: NDArray[Any]) -> dict[str, Any]:
    """Returns an array as JSON: its shape, and its values as float32, little-endian, in base64."""
    data = np.ascontiguousarray(values, "<f4")
    return {"shape": values.shape, "data": base64.b64encode(data.tobytes()).decode()}
