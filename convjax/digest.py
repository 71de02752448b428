"""The one digest that convjax knows contents by."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def running(content: bytes | memoryview = b"") -> "hashlib.blake2b":
    """Returns a digest that may be updated with more content: 128 bits of BLAKE2b (RFC 7693)."""
    return hashlib.blake2b(content, digest_size=16)


def digest(content: bytes | memoryview) -> str:
    """Returns the digest of the content in hexadecimal."""
    return running(content).hexdigest()


def array_digest(array: NDArray[np.generic]) -> str:
    """Returns the digest of an array's bytes in row-major order; neither shape nor type take part."""
    return digest(array_bytes(array))


def array_bytes(array: NDArray[np.generic]) -> memoryview:
    """Returns an array's bytes in row-major order."""
    # Seen as bytes, without a copy: NumPy gives no buffer of bfloat16.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
