"""The house's own laws: which way imports point, and what importing costs."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "convjax"

ROOMS = {
    "__init__": {"inspect"},  # the front door, which opens it only when asked: see test_features.py
    "errors": set(),
    "digest": set(),
    "files": set(),
    "allocator": {"errors"},
    "compiled": {"digest", "files", "errors"},
    "ops": {"errors"},
    "norms": {"ops", "errors"},
    "layers": {"norms", "ops", "errors"},
    "models": {"layers", "norms", "ops", "errors"},
    "data": {"digest", "files", "errors"},
    "train": {"ops", "data", "digest", "errors", "files", "allocator"},
    "inspect": {"allocator", "compiled", "train", "data", "digest", "models", "layers", "norms", "ops", "errors"},
    "interop": {"train", "data", "digest", "files", "models", "layers", "norms", "ops", "errors"},
    "profile": {"inspect", "train", "data", "ops", "errors"},
    "sweep": {
        "allocator",
        "compiled",
        "profile",
        "inspect",
        "train",
        "data",
        "digest",
        "models",
        "layers",
        "norms",
        "ops",
        "errors",
    },
    "report": {"sweep", "profile", "interop", "inspect", "train", "data", "digest", "errors"},
    "explore": {"inspect", "train", "data", "norms", "ops", "errors"},
    "cli": {
        *(
            "explore",
            "report",
            "sweep",
            "profile",
            "interop",
            "inspect",
            "train",
            "digest",
            "data",
            "models",
            "layers",
            "norms",
            "ops",
            "allocator",
            "compiled",
        ),
        "errors",
    },
    "__main__": {"cli"},
}
"""What each part of convjax may import, besides itself."""


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    relative = file.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
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


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def import_all() -> str:
    """Returns code that imports every module of convjax."""
    modules = [".".join(("convjax", *f.relative_to(PACKAGE).with_suffix("").parts)) for f in PACKAGE.rglob("*.py")]
    names = sorted(m.removesuffix(".__init__") for m in modules)
    assert "convjax.train.loop" in names
    return "\n".join(f"import {name}" for name in names)


STOCK = """
import json, os
import flax.linen as nn
import jax
import jax.numpy as jnp

def answers(x):
    x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(8, (3, 3))(x)))
    return nn.avg_pool(nn.max_pool(x, (2, 2), (2, 2)), (2, 2)).sum()

class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return answers(x)

model, x = Net(), jnp.ones((2, 8, 8, 3))
variables = jax.eval_shape(model.init, jax.random.key(0), x)
gradient = jax.grad(lambda variables, x: model.apply(variables, x, mutable=["batch_stats"])[0])
settings = {name: repr(value) for name, value in jax.config.values.items()}
print(json.dumps([settings, dict(os.environ), jax.jit(gradient).lower(variables, x).as_text()]))
"""


def test_importing_convjax_changes_nothing_of_jax() -> None:
    settings, environment, program = json.loads(run(STOCK))
    assert "stablehlo.convolution" in program
    assert json.loads(run(f"{import_all()}\n{STOCK}")) == [settings, environment, program]


def test_help_waits_for_no_library() -> None:
    call = "from convjax.cli import main\ntry:\n    main(['--help'])\nfinally:\n    print('--', *sys.modules)"
    _, _, loaded = run(f"import sys\n{call}").rpartition("--")
    assert "convjax.cli" in loaded.split()
    assert {name.split(".")[0] for name in loaded.split()}.isdisjoint({"jax", "flax", "numpy", "tyro", "rich"})


def test_neither_tensorflow_nor_pytorch_is_imported(tmp_path: Path) -> None:
    # Both lie on the path, so that whoever asks for them, were it only to see whether they are there, gets them.
    for name in ("tensorflow", "torch"):
        (tmp_path / f"{name}.py").write_text("")
    code = f"import sys\n{import_all()}\nfrom convjax.data import sources\nsources.load('digits')\nprint(*sys.modules)"
    loaded = {name.split(".")[0] for name in run(code, PYTHONPATH=str(tmp_path)).split()}
    assert loaded.isdisjoint({"tensorflow", "torch"})
    assert "jax" in loaded


def test_tfds_data_are_read_without_tensorflow(tfds_directory: Path) -> None:
    code = (
        "import sys\nfrom convjax.data import sources\n"
        f"source = sources.load('fashion_mnist', directory={str(tfds_directory)!r})\n"
        "print(len(source.test), 'tensorflow' in sys.modules)"
    )
    assert run(code).split() == ["10000", "False"]


def test_importing_convjax_takes_at_most_half_again_as_long_as_jax_and_linen() -> None:
    # CPU seconds of a fresh interpreter: what other processes do to the clock does not count.
    measure = "import resource\n{}\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    ratios = []
    for _ in range(3):
        ours = float(run(measure.format("import convjax")))
        theirs = float(run(measure.format("import jax, flax.linen")))
        ratios.append(ours / theirs)
    assert sorted(ratios)[1] <= 1.5
