"""The tutorial's code, as it stands on the page."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from real_command import ROOT, Command


def test_the_tutorial_builds_trains_and_looks_into_a_network(convjax: Command, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    first, look = (code for language, code in blocks if language == "python")
    (command,) = (code for language, code in blocks if language == "sh")
    (shapes,) = (code for language, code in blocks if language == "text")
    lines = [line for line in (first + look).splitlines() if line.strip()]
    assert len(lines) <= 40, "the tutorial promises forty lines"
    for name, code in (("first.py", first), ("look.py", look)):
        assert f"`{name}`" in text
        (tmp_path / name).write_text(code)

    program, *arguments = shlex.split(command)
    assert program == "convjax"
    trained = convjax(*arguments, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    accuracy = json.loads((tmp_path / "runs" / "first" / "result.json").read_text())["test"]["accuracy"]
    assert accuracy > 0.9

    looked = subprocess.run([sys.executable, "look.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert looked.returncode == 0, looked.stderr
    found = looked.stdout.splitlines()
    assert found[0] == f"{round(360 * accuracy)} of 360 right"
    assert found[1:4] == shapes.splitlines()
    patch = [[int(value) for value in re.findall(r"\d+", line)] for line in found[5:]]
    # A field of 8 pixels every 2, from 2 before the image on: the border cuts off 1 to 3 on a side.
    assert all(len(row) == len(patch[0]) for row in patch)
    assert 5 <= len(patch) <= 7
    assert 5 <= len(patch[0]) <= 7
