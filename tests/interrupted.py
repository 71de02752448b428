"""Runs that are stopped at chosen moments, and what of them must not depend on that."""

import json
import signal
from typing import Any

from convjax.train.interrupts import Interrupts
from convjax.train.run import Run


class StopsAt(Interrupts):
    """A signal that comes at a chosen moment: the n-th time that a run looks whether one came."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._left = n

    @property
    def received(self) -> signal.Signals | None:
        self._left -= 1
        return signal.SIGTERM if self._left < 0 else None


def bits(run: Run, steps: int) -> dict[str, Any]:
    """Returns all of a run of so many steps that must not depend on interruptions."""
    record = json.loads((run.checkpoints / str(steps) / "record" / "metadata").read_text())
    return {
        "arrays": record["arrays"],
        "metrics": (run.path / "metrics.jsonl").read_text(),
        "result": json.loads(run.result.read_text()),
    }
