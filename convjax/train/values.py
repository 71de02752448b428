"""Values of configuration fields, read and checked."""

import math
import re
from typing import Literal

from convjax.errors import UsageError, require

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?)\s*")


def parse_duration(field: str, duration: str) -> tuple[float, Literal["steps", "epochs"]]:
    """Returns number and unit of "500 steps" or "1.5 epochs".

    Raises:
        UsageError: `duration`, the value of `field`, reads otherwise.
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise UsageError(f"{field} is {duration!r}: it must read like '500 steps' or '5 epochs'")
    return float(match[1]), "steps" if match[2].startswith("step") else "epochs"


def parse_rate(field: str, rate: str) -> tuple[str, float]:
    """Returns pattern and factor of "stage1*/*=0.1".

    Raises:
        UsageError: `rate`, one of the values of `field`, reads otherwise.
    """
    pattern, _, factor = rate.rpartition("=")
    try:
        number = float(factor)
    except ValueError:
        number = math.nan
    right = "a pattern and a factor above 0, as 'stage1*/*=0.1' (optim.freeze is for what does not learn)"
    require(bool(pattern) and 0 < number < math.inf, f"a value of {field}", repr(rate), right)
    return pattern, number


def parse_end(field: str, end: str) -> tuple[str, str]:
    """Returns pattern and duration of "stem/*=3 epochs".

    Raises:
        UsageError: `end`, one of the values of `field`, reads otherwise.
    """
    pattern, _, duration = end.rpartition("=")
    require(bool(pattern), f"a value of {field}", repr(end), "a pattern and a duration, as 'stem/*=3 epochs'")
    count, _ = parse_duration(f"{pattern} of {field}", duration)
    require(count > 0, f"{pattern} of {field}", duration, "longer than nothing (optim.freeze is for what never learns)")
    return pattern, duration


def rising(shares: tuple[float, ...]) -> bool:
    """Says whether shares rise between 0 and 1."""
    return all(a < b for a, b in zip((0.0, *shares), (*shares, 1.0), strict=True))
