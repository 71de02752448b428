"""The `convjax` command: finds the subcommand, and turns errors into messages and exit codes."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn

import convjax
from convjax.errors import RunError, UsageError, nearest

COMMANDS = {
    "train": ("train", "train an experiment, or go on with it"),
    "eval": ("evaluate", "evaluate a run's checkpoint on a split"),
    "predict": ("predict", "classify image files with a run's checkpoint"),
    "models": ("models", "list the named models with parameters and multiply-accumulates"),
    "data": ("data", "describe a data set and draw examples of it"),
}
"""The module of `convjax.cli` whose `run(arguments)` implements each command, and what it does."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits: 0 done, 1 failed at work, 2 wrong usage or input, 130 interrupted."""
    sys.exit(_main(list(sys.argv[1:] if arguments is None else arguments)))


def run_experiment(file: str) -> NoReturn:
    """Trains the experiment in `file` with the flags of the command line: what an experiment file runs as a script."""
    main(["train", file, *sys.argv[1:]])


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"convjax {convjax.__version__}")
        return 0
    command, *rest = arguments
    # Orbax and TFDS log through absl what is of no use to whoever runs a command.
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.excepthook = _report
    try:
        if command not in COMMANDS:
            raise UsageError(f"there is no command {command!r}: {nearest(command, list(COMMANDS))}")
        # Imported only now: `convjax --help` need not wait for JAX.
        importlib.import_module(f"convjax.cli.{COMMANDS[command][0]}").run(rest)
        sys.stdout.flush()
    except UsageError as error:
        print(f"convjax: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        # Reads of a damaged checkpoint that are still under way end after us; each would print a traceback.
        sys.unraisablehook = lambda _: None
        print(f"convjax: failed: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has had enough; nothing must be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"convjax: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        more = "; the same command goes on from the last checkpoint" if command == "train" else ""
        print(f"convjax: interrupted{more}", file=sys.stderr)
        return 130
    return 0


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an uncaught exception, unless it is a read's that outlived the restore which it belonged to.

    TensorStore's threads report so when one read of a damaged checkpoint fails and others are still under way.
    """
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__excepthook__(kind, error, trace)


def _usage() -> str:
    commands = "\n".join(f"  {name:<9}{text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: convjax COMMAND ...\n\n{convjax.__doc__}\ncommands:\n{commands}\n\nconvjax COMMAND --help tells more."
    )
