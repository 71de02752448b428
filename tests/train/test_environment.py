"""What a run writes down of where its numbers come from."""

from pathlib import Path

import pytest

import convjax
from convjax.train import environment


@pytest.mark.parametrize("source", ["step.py", "kernel.cc", "loops.h"])
def test_the_digest_of_the_code_is_of_every_kind_of_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    def digest() -> str:
        found = environment.describe(None)["code"]["convjax_digest"]
        assert isinstance(found, str)
        return found

    monkeypatch.setattr(convjax, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / source).write_text("1")
    before = digest()
    (tmp_path / "ops" / "notes.txt").write_text("no source")
    assert digest() == before
    (tmp_path / "ops" / source).write_text("2")
    assert digest() != before
