"""Metrics to Weights & Biases, on line or off line; whatever goes wrong there, the training goes on."""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from convjax.errors import UsageError, check_choices
from convjax.files import write_whole

_STATE = "convjax.json"
PATIENCE = 60.0
"""Seconds that the run waits at its end for what is still to be sent."""

DELIVERY = 30.0
"""Seconds after which what was handed over counts as written: wandb's own process does that, apart from ours."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WandbConfig:
    """Whether metrics go to Weights & Biases, too; needs `pip install 'convjax[wandb]'`."""

    mode: Literal["off", "offline", "online"] = "off"
    """online: sent as the run goes on; offline: kept in the run's directory, until `wandb sync` sends them."""
    project: str = "convjax"
    """The project there."""
    entity: str | None = None
    """The user or team there; None takes the default of whoever has logged in."""

    def __post_init__(self) -> None:
        check_choices(self, "wandb")
        if not self.project:
            raise UsageError("wandb.project is empty: it must be a name")

    def require(self) -> None:
        """Makes sure that the package is there if it is needed.

        Raises:
            UsageError: it is not.
        """
        if self.mode != "off" and importlib.util.find_spec("wandb") is None:
            raise UsageError(f"wandb.mode is {self.mode!r}: pip install 'convjax[wandb]', or leave it off")


class WandbLog:
    """A run at Weights & Biases, the same one each time that the training goes on; a context manager.

    Lines of metrics.jsonl are handed over once each: how many have been is kept beside the id. A run that goes on
    writes the same lines again, so that those which were taken back and come again are known by their number, which is
    wandb's own step of a row, too. What a process that is killed had handed over at the last may be lost, and is handed
    over again. The first failure is warned of, and nothing is handed over any more.
    """

    def __init__(self, config: WandbConfig, directory: Path, settings: Mapping[str, Any]) -> None:
        """Begins the run there, or goes on with it.

        Args:
            config: where to.
            directory: the training's directory; its name is the run's.
            settings: the training's configuration.
        """
        self._run: Any = None
        self._state = directory / "wandb" / _STATE
        self._id, self._sent = uuid.uuid4().hex[:8], 0
        self._current: int | None = None
        self._waiting: deque[tuple[float, int]] = deque()
        with self._tolerant("cannot begin"):
            import wandb

            if self._state.is_file():
                state = json.loads(self._state.read_text())
                self._id, self._sent = str(state["id"]), int(state["lines"])
            self._state.parent.mkdir(exist_ok=True)
            self._remember(self._sent)
            run = wandb.init(
                mode=config.mode if config.mode == "offline" else "online",
                project=config.project,
                entity=config.entity,
                id=self._id,
                name=directory.resolve().name,
                dir=directory,
                config=dict(settings),
                resume="allow",
                settings=wandb.Settings(console="off", silent=True),
            )
            # Curves over the training's steps; wandb's own count is that of lines.
            run.define_metric("step")
            run.define_metric("*", step_metric="step")
            self._run = run

    def __enter__(self) -> "WandbLog":
        return self

    def __exit__(self, *_: object) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        # It may wait for a network that does not come back.
        ending = threading.Thread(target=lambda: self._finish(run), daemon=True)
        ending.start()
        ending.join(PATIENCE)
        if ending.is_alive():
            _logger.warning("Weights & Biases: not all was sent in %g s; `wandb sync` sends the rest", PATIENCE)

    def write(self, line: int, step: int, scalars: Mapping[str, float]) -> None:
        """Hands over a line of metrics.jsonl, unless it has been.

        Args:
            line: its number, counted from 0.
            step: steps done.
            scalars: its numbers by name.
        """
        if self._run is None or line < self._sent:
            return
        with self._tolerant("cannot be written to"):
            self._run.log({"step": step, **scalars}, step=line)
            self._current, now = line, time.monotonic()
            self._waiting.append((now, line))
            while self._waiting[0][0] < now - DELIVERY:
                self._remember(self._waiting.popleft()[1] + 1)

    def write_beside(self, line: int, scalars: Mapping[str, float]) -> None:
        """Adds to the line handed over last what is of the clock, and so not in metrics.jsonl."""
        if self._run is not None and line == self._current:
            with self._tolerant("cannot be written to"):
                self._run.log(dict(scalars), step=line)

    def _finish(self, run: Any) -> None:
        with self._tolerant("cannot be ended"):
            run.finish()
            if self._current is not None:
                self._remember(self._current + 1)

    def _remember(self, lines: int) -> None:
        write_whole(self._state, json.dumps({"id": self._id, "lines": lines}).encode())

    @contextlib.contextmanager
    def _tolerant(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # theirs are many, and none is worth the training
            self._run = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            _logger.warning("Weights & Biases %s, the training goes on without: %s", what, reason)


def opened(
    config: WandbConfig, directory: Path, settings: Mapping[str, Any], *, first: bool
) -> contextlib.AbstractContextManager[WandbLog | None]:
    """Returns the log of a run at Weights & Biases; of several processes the first has it, if it is wanted at all."""
    return contextlib.nullcontext() if config.mode == "off" or not first else WandbLog(config, directory, settings)
