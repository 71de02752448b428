"""A system at work in a process of its own, seen from outside."""

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from convjax.allocator import MEMORY, SETTINGS
from peers.cases import Case, Device, System


class Failed(Exception):
    """A system's process ended before it should have, or computed nothing."""


class Process:
    """One system on one case; between its steps it waits.

    Attributes:
        first_step: seconds from the start of the process to the end of its first step, compilation included.
        parameters: of its network.
        peak: bytes that the process had in memory at the most until its latest step; on a GPU, in the GPU's.
    """

    def __init__(self, system: System, case: Case, torch: str) -> None:
        """Starts the process and waits for its first step.

        Args:
            system: what to run.
            case: on what.
            torch: the interpreter that has PyTorch.
        """
        self.system = system
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        began = time.perf_counter()
        interpreter = torch if system.torch else sys.executable
        arguments = (system.side, system.mode, case.network, case.task, case.precision, case.device)
        self._process = subprocess.Popen(
            [interpreter, "-m", "peers.worker", *arguments],
            cwd=Path(__file__).parents[1],
            env=environment(system, case.device),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        first = self._answer()
        self._require_number(first["value"])
        self.first_step = time.perf_counter() - began
        self.parameters: int = first["parameters"]
        self.peak = 0

    def steps(self, count: int) -> list[float]:
        """Takes steps and returns the seconds of each."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer tells why
            print(count, file=self._process.stdin, flush=True)
        answer = self._answer()
        self._require_number(answer["value"])
        self.peak = answer["peak"]
        return answer["seconds"]

    def _require_number(self, value: float) -> None:
        """Refuses a loss or a logit that is none: a network that computes nothing may be fast at it."""
        if not math.isfinite(value):
            self.close()
            raise Failed(f"{self.system.name} computed {value}")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            told = [text for text in self._errors.read().splitlines() if text.strip()]
            self.close()
            raise Failed(f"{self.system.name} ended with {code}: {told[-1] if told else 'it said nothing'}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the process end, and waits for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def completed(name: str, command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Returns what a system's command has printed, once it is done; raises Failed if it failed."""
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=variables, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{name} ended with {done.returncode}: {(done.stderr.splitlines() or [''])[-1]}")
    return done.stdout


def interpreter(parser: argparse.ArgumentParser, given: str | Path) -> str:
    """Returns the path of the option --torch for processes that start elsewhere, or ends with the parser's error."""
    path = shutil.which(given)
    if path is None:
        parser.error(f"--torch is {given}, which is no program: the interpreter that has PyTorch")
    # Not resolved: a virtual environment's interpreter is a link.
    return str(Path(path).absolute())


def environment(system: System, device: Device = "cpu") -> dict[str, str]:
    """Returns the environment of a process: the caller's, but for what would make systems unequal."""
    given = {k: v for k, v in os.environ.items() if k not in (*SETTINGS, "CONVJAX_CPU_KERNELS", "PYTHONPATH")}
    threads = str(len(os.sched_getaffinity(0)))
    if device == "gpu":
        # All systems of a case are there at once.
        return {**given, "JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # How OpenMP waits is set for several threads of XLA that call it; PyTorch has one, which its default is for.
    settings = (SETTINGS if system.side == "convjax_side" else MEMORY) if system.memory else {}
    return {**given, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": threads, **settings}
