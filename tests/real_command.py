"""The real command, run as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[1]
Command: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

EXPERIMENT = """
from convjax.models import MLP
from convjax.train.config import Config, DataConfig, TrainConfig

config = Config(
    model=MLP(hidden=(16,)),
    data=DataConfig("digits"),
    train=TrainConfig(length="20 steps", batch_size=50, evaluate_every="10 steps", log_every=5),
)
"""


def run(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the real command."""
    return subprocess.run(
        [Path(sys.executable).parent / "convjax", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
