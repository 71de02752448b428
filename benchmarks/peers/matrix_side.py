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
    a, b = (torch.randn(MATRIX, MATRIX, dtype=getattr(torch, case.precision)) for _ in range(2))
    yield Prepared(lambda: torch.mm(a, b)[0, 0].item(), 0)
