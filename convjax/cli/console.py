"""The console that commands print tables on."""

from rich.console import Console
from rich.table import Table

from convjax.sweep.cells import Table as Cells


def console() -> Console:
    """Returns a console that takes every text as it is, and folds nothing where the output is no terminal."""
    plain = Console(highlight=False, markup=False, emoji=False)
    return plain if plain.is_terminal else Console(highlight=False, markup=False, emoji=False, width=1000)


def rich_table(cells: Cells) -> Table:
    """Returns a table for the terminal."""
    made = Table(box=None, header_style="bold")
    for i, column in enumerate(cells.columns):
        made.add_column(column, justify="right" if cells.is_number(i) else "left")
    for row in cells.rows:
        made.add_row(*row)
    return made
