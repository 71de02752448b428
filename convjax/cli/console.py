"""The console that commands print tables on."""

from rich.console import Console


def console() -> Console:
    """Returns a console that takes every text as it is, and folds nothing where the output is no terminal."""
    plain = Console(highlight=False, markup=False, emoji=False)
    return plain if plain.is_terminal else Console(highlight=False, markup=False, emoji=False, width=1000)
