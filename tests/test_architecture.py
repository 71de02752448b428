"""The house's own laws: which way imports point, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "convjax"

ROOMS = {
    "errors": set(),
    "ops": {"errors"},
    "layers": {"ops", "errors"},
    "models": {"layers", "ops", "errors"},
    "data": {"errors"},
    "train": {"data", "errors"},
    "inspect": {"train", "data", "models", "layers", "ops", "errors"},
    "cli": {"inspect", "train", "data", "models", "layers", "ops", "errors"},
}
"""What each part of convjax may import, besides itself."""


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    relative = file.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
    if room == "__init__":
        allowed: set[str] = set()
    else:
        allowed = ROOMS[room] | {room}
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "convjax" else [f"convjax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("convjax."):
                assert name.split(".")[1] in allowed, f"{relative}:{node.lineno} imports {name}"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout


def test_neither_tensorflow_nor_pytorch_is_imported() -> None:
    modules = [".".join(("convjax", *f.relative_to(PACKAGE).with_suffix("").parts)) for f in PACKAGE.rglob("*.py")]
    names = sorted(m.removesuffix(".__init__") for m in modules)
    assert "convjax.train.loop" in names
    imports = "\n".join(f"import {name}" for name in names)
    code = f"import sys\n{imports}\nfrom convjax.data import sources\nsources.load('digits')\nprint(*sys.modules)"
    loaded = {name.split(".")[0] for name in run(code).split()}
    assert loaded.isdisjoint({"tensorflow", "torch"})
    assert "jax" in loaded


def test_importing_convjax_takes_at_most_half_again_as_long_as_jax_and_linen() -> None:
    # CPU seconds of a fresh interpreter: what other processes do to the clock does not count.
    measure = "import resource\n{}\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    ratios = []
    for _ in range(3):
        ours = float(run(measure.format("import convjax")))
        theirs = float(run(measure.format("import jax, flax.linen")))
        ratios.append(ours / theirs)
    assert sorted(ratios)[1] <= 1.5
