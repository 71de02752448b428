"""The product of two square matrices, by PyTorch: the most that the machine can do."""

import contextlib
from collections.abc import Iterator

import torch

from peers.cases import MATRIX, Case
from peers.side import Prepared


@contextlib.contextmanager
def prepared(case: Case, mode: str) -> Iterator[Prepared]:
    """Prepares products in the case's precision."""
    del mode
    side, device = MATRIX[case.device], "cuda" if case.device == "gpu" else "cpu"
    # Convolutions in float32 are computed so by PyTorch and JAX alike, unless they are told otherwise.
    torch.backends.cuda.matmul.allow_tf32 = True
    a, b = (torch.randn(side, side, dtype=getattr(torch, case.precision), device=device) for _ in range(2))
    yield Prepared(lambda: torch.mm(a, b), lambda product: product[0, 0].item(), parameters=0)
