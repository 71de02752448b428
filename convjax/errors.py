"""The two ways in which a command can fail; `convjax.cli` turns them into exit codes."""


class UsageError(Exception):
    """The command line, the configuration or an input file is wrong (exit code 2).

    The message names the field or file, the value found, and what would be right.
    """


class RunError(Exception):
    """The work failed although the input was right, or a run's own files are damaged (exit code 1)."""


def nearest(name: str, known: list[str]) -> str:
    """Returns a half-sentence that names the known names closest to `name`."""
    # Needed only on the way out with an error.
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(known)}"
