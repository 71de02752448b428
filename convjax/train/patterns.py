"""Parameters by their paths, and patterns that match these."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import jax

from convjax.errors import UsageError


def path_name(path: tuple[Any, ...]) -> str:
    """Returns a parameter's path as `stage1_block1/conv1/conv/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def names(tree: Any) -> list[str]:
    """Returns the paths of a tree's leaves."""
    return [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Says whether one of the patterns matches a path: `*` stands for anything, slashes too."""
    # A leading slash lets "*/bias" match a parameter at the top of the tree as well.
    return any(fnmatchcase(n, pattern) for pattern in patterns for n in (name, f"/{name}"))


def select(tree: Any, patterns: Iterable[str]) -> Any:
    """Returns which leaves of a tree a pattern matches: the tree with a bool for each."""
    patterns = tuple(patterns)
    return jax.tree_util.tree_map_with_path(lambda path, _: matches(path_name(path), patterns), tree)


def check(field: str, patterns: Iterable[str], known: Iterable[str]) -> None:
    """Makes sure that each pattern matches a path.

    Raises:
        UsageError: one matches none; the message names the paths that are most like it.
    """
    known = list(known)
    for pattern in patterns:
        if not any(matches(name, (pattern,)) for name in known):
            near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.0)
            raise UsageError(f"{field} has {pattern!r}, which matches no parameter; nearest are {', '.join(near)}")
