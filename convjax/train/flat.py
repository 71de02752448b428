"""Nested dictionaries, such as JSON gives them, by the paths of their values."""

from typing import Any, TypeAlias

Changes: TypeAlias = dict[str, tuple[Any, Any]]
"""Value before and value now by field."""


def flatten(json: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one, `{"optim.lr": 0.1, ...}`."""
    if not isinstance(json, dict):
        return {prefix: json}
    flat: dict[str, Any] = {}
    for key, value in json.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def differences(old: Any, new: Any) -> Changes:
    """Returns the fields in which two nested dictionaries differ."""
    there, now = flatten(old), flatten(new)
    pairs = {key: (there.get(key, "absent"), now.get(key, "absent")) for key in sorted({*there, *now})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
