"""The two ways in which a command can fail; `convjax.cli` turns them into exit codes."""

import contextlib
import traceback
import typing
from collections.abc import Iterator, Mapping
from typing import Literal

_SHOWN = 10
"""Names of one kind that a message lists."""


class UsageError(Exception):
    """The command line, the configuration or an input file is wrong (exit code 2).

    The message names the field or file, the value found, and what would be right.
    """


class RunError(Exception):
    """The work failed although the input was right, or a run's own files are damaged (exit code 1)."""


@contextlib.contextmanager
def about(subject: object) -> Iterator[None]:
    """Puts what is being looked at before the message of a `UsageError`."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{subject}: {error}") from error


def nearest(name: str, known: list[str]) -> str:
    """Returns a half-sentence that names the known names closest to `name`."""
    # Needed only on the way out with an error.
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(known)}"


def require(condition: bool, field: str, value: object, right: str) -> None:
    """Raises a `UsageError` that names field, value and what would be right, unless a condition holds."""
    if not condition:
        raise UsageError(f"{field} is {value}: it must be {right}")


def switched_off(variable: str, environment: Mapping[str, str]) -> bool:
    """Says whether a variable of the environment switches off what it is for.

    Raises:
        UsageError: it is something else than off.
    """
    value = environment.get(variable)
    require(value in (None, "off"), f"${variable}", repr(value), "off, or not set")
    return value is not None


def check_choices(owner: object, prefix: str) -> None:
    """Makes sure that the fields typed as `Literal` hold one of their values, which Python itself does not.

    Raises:
        UsageError: one does not; the field is named as `prefix.field`.
    """
    for name, hint in typing.get_type_hints(type(owner)).items():
        if typing.get_origin(hint) is Literal and getattr(owner, name) not in typing.get_args(hint):
            choices = ", ".join(map(str, typing.get_args(hint)))
            raise UsageError(f"{prefix}.{name} is {getattr(owner, name)!r}: it must be one of {choices}")


def require_shapes(what: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Makes sure that arrays are those that are expected, by names and shapes.

    Raises:
        UsageError: they do not; the names are listed.
    """
    faults = {
        "lacks": [key for key in expected if key not in found],
        "should not have": [key for key in found if key not in expected],
        "has in another shape": [
            f"{key} (should be {expected[key]}, is {found[key]})"
            for key in expected
            if key in found and tuple(found[key]) != tuple(expected[key])
        ],
    }
    listed = []
    for fault, keys in faults.items():
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            listed.append(f"it {fault}: {', '.join(keys[:_SHOWN])}{more}")
    if listed:
        raise UsageError(f"{what} does not fit; " + "; ".join(listed))


def model_error(error: Exception, image: tuple[int, ...]) -> UsageError:
    """Returns what to raise where a model fails on images of this size; it names the line to look at."""
    size = " x ".join(map(str, image))
    # The innermost frame outside of libraries is where a model's author must look.
    own = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    return UsageError(f"the model cannot be built for images of {size}: {where}{type(error).__name__}: {error}")
