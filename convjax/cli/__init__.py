"""The `convjax` command: finds the subcommand, and turns errors into messages and exit codes."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import convjax
from convjax import allocator
from convjax.errors import RunError, UsageError, nearest

COMMANDS = {
    "train": ("train", "train an experiment, or go on with it"),
    "sweep": ("sweep", "train an experiment in every combination of what varies"),
    "eval": ("evaluate", "evaluate a run's checkpoint on a split"),
    "predict": ("predict", "classify image files with a run's checkpoint"),
    "average": ("average", "average a run's last checkpoints"),
    "weights": ("weights", "import weights of PyTorch's libraries, or export some"),
    "export": ("export", "write a network as StableHLO or ONNX, for other programs to run"),
    "inspect": ("inspect", "draw filters, feature maps, and where a network's answers come from"),
    "report": ("report", "write what there is to know of a run as one HTML file"),
    "explore": ("explore", "open a page that shows convolutions, and a run's network, at work"),
    "runs": ("runs", "list all runs below a directory with their settings and results"),
    "compare": ("compare", "compare the arms of a sweep: table, pictures and verdict"),
    "replay": ("replay", "run one step of a run again and look into it"),
    "diff": ("diff", "show in what two runs differ"),
    "doctor": ("doctor", "look whether this machine is ready to train"),
    "summary": ("summary", "list a network's layers with parameters, multiply-accumulates and activations"),
    "profile": ("profile", "time a training step layer by layer, and find what bounds it"),
    "models": ("models", "list the named models with parameters and multiply-accumulates"),
    "data": ("data", "describe a data set and draw examples of it"),
}
"""The module of `convjax.cli` whose `run(arguments)` implements each command, and what it does."""

COMPUTE = frozenset({"train", "eval", "predict", "average", "inspect", "report", "explore", "replay", "profile"})
"""Commands that run networks themselves."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits: 0 done, 1 failed at work, 2 wrong usage or input, 130 interrupted."""
    sys.exit(_main(list(sys.argv[1:] if arguments is None else arguments), anew=arguments is None))


def run_experiment(file: str) -> NoReturn:
    """Trains the experiment in `file` with the flags of the command line: what an experiment file runs as a script."""
    main(["train", file, *sys.argv[1:]])


def _main(arguments: list[str], *, anew: bool) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"convjax {convjax.__version__}")
        return 0
    command, *rest = arguments
    # Orbax and TFDS log through absl what is of no use to whoever runs a command; what fails is raised as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    warnings = logging.StreamHandler()
    warnings.setFormatter(logging.Formatter("convjax: warning: %(message)s"))
    logging.getLogger("convjax").addHandler(warnings)
    logging.getLogger("convjax").propagate = False
    silence_strays()
    try:
        if command not in COMMANDS:
            raise UsageError(f"there is no command {command!r}: {nearest(command, list(COMMANDS))}")
        if anew and command in COMPUTE and not {"-h", "--help"} & set(rest):
            allocator.settle()
        # Imported only now: `convjax --help` need not wait for JAX.
        importlib.import_module(f"convjax.cli.{COMMANDS[command][0]}").run(rest)
        sys.stdout.flush()
    except UsageError as error:
        print(f"convjax: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
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
        print("convjax: interrupted", file=sys.stderr)
        return 130
    return 0


def silence_strays() -> None:
    """Keeps reads and writes of a checkpoint that outlive the one that failed from printing a traceback each.

    The first that fails ends the restore or the save, and is raised; TensorStore's threads report the others through
    Python's hooks, and asyncio those of Orbax's tasks that nobody asked for their end.
    """

    def stray(error: BaseException | None) -> bool:
        return str(error).startswith(("Event loop is closed", "Encountered error while reading array index"))

    excepthook, unraisablehook = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, trace: None if stray(error) else excepthook(kind, error, trace)
    sys.unraisablehook = lambda report: None if stray(report.exc_value) else unraisablehook(report)
    logging.getLogger("asyncio").addFilter(_asked_for)


def _asked_for(record: logging.LogRecord) -> bool:
    """Says whether a message of asyncio is not of a task that has failed without anyone asking for its end."""
    return "exception was never retrieved" not in record.getMessage()


def _usage() -> str:
    commands = "\n".join(f"  {name:<9}{text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: convjax COMMAND ...\n\n{convjax.__doc__}\ncommands:\n{commands}\n\nconvjax COMMAND --help tells more."
    )
