"""`convjax explore [RUN_OR_WEIGHTS]`: a page that shows a ConvNet in action."""

import dataclasses
import signal
import webbrowser
from pathlib import Path
from typing import Annotated

import tyro

from convjax.cli.arguments import which_checkpoint
from convjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Opens a page on this machine that shows convolution, pooling, batch norm and, with RUN, a whole network.

    RUN may also be a directory that `convjax weights import` made. The page is for this machine alone: its
    address holds a token.
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Directory of a run, or of weights."""
    checkpoint: str = "best"
    """best (by validation accuracy), latest, or a step."""
    port: int | None = None
    """Port of the page; None takes a free one."""
    browser: bool = True
    """Whether to open a browser."""

    def __post_init__(self) -> None:
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UsageError(f"--port is {self.port}: it must be from 1 to 65535")


def run(arguments: list[str]) -> None:
    """Prints the page's address and answers it until interrupted."""
    parsed = tyro.cli(Arguments, prog="convjax explore", args=arguments)
    which = which_checkpoint(parsed.checkpoint)
    # Ignored where a script has started it in the background: the page says that an interrupt ends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    # JAX and the server are imported only now: --help need not wait for them.
    from convjax import compiled
    from convjax.explore import pictures
    from convjax.explore.answers import Answers
    from convjax.explore.network import Network
    from convjax.explore.server import Server
    from convjax.ops import cpu

    compiled.keep()
    network = None
    if parsed.run is not None:
        from convjax.train import weights

        network = Network(weights.of(parsed.run, which))
    examples, note = pictures.examples(parsed.run)
    name = parsed.run.name if parsed.run else ""
    server = Server(Answers(pictures.Pictures(examples), network, name, note), parsed.port)
    try:
        print(f"{server.address}\nCtrl-C ends it.", flush=True)
        if parsed.browser:
            webbrowser.open(server.address)
        with cpu.switched_on():
            server.run()
    except KeyboardInterrupt:
        pass
    print("ended")
