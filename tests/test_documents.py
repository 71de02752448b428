"""What documents show is what happens: their files are written, their commands run, their outputs compared."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PROGRESS = re.compile(r"^step .* left\n", re.MULTILINE)
"""Lines that a run prints every so many seconds: how many there are depends on the machine's speed."""


class Command(NamedTuple):
    line: str
    output: str


def commands(block: str) -> list[Command]:
    """Returns the commands of a console's block, which begin with `$ `, each with what follows it."""
    return [Command(*part.split("\n", 1)) for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def follow(document: Path, folder: Path) -> int:
    """Does what a document says, in a folder; returns the number of commands run."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    count = 0
    for block in BLOCK.finditer(document.read_text()):
        if block["file"]:
            (folder / block["file"]).write_text(block["text"])
        elif block["language"] == "console":
            for line, output in commands(block["text"]):
                done = subprocess.run(
                    line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                printed = PROGRESS.sub("", done.stdout)
                assert doctest.OutputChecker().check_output(output, printed, ALIKE), f"{line}\n{done.stdout}"
                count += 1
    return count


@pytest.mark.slow
def test_the_guide_to_new_architectures(tmp_path: Path) -> None:
    guide = DOCS / "new-architecture.md"
    network = next(block for block in BLOCK.finditer(guide.read_text()) if block["file"] == "meannet.py")
    assert len(network["text"].splitlines()) <= 60
    assert follow(guide, tmp_path) == 14


def test_a_document_that_is_wrong_is_found(tmp_path: Path) -> None:
    document = tmp_path / "guide.md"
    document.write_text("```python a.py\nprint(1 + 1)\n```\n\n```console\n$ python a.py\n2\n$ echo a b c\na...c\n```\n")
    assert follow(document, tmp_path) == 2
    document.write_text("```console\n$ python a.py\n3\n```\n")
    with pytest.raises(AssertionError, match=r"python a\.py"):
        follow(document, tmp_path)
