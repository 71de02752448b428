from html.parser import HTMLParser
from pathlib import Path

import made
import pytest
from real_command import Command

from convjax.errors import UsageError
from convjax.report import sweep_page

ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_sweep_is_reported_with_its_comparison(tmp_path: Path) -> None:
    axes = {"model.norm": ["batch", ATTACK], "seed": [0, 1]}
    values = {("batch", 0): 0.91, ("batch", 1): 0.93, (ATTACK, 0): 0.8125, (ATTACK, 1): f"it broke {ATTACK}"}
    directory = made.sweep(tmp_path / "<b>norms", axes, values)
    page = Page(sweep_page.render(directory))
    # Of the two whose arm is called by a script, only one has a result.
    assert "not finished: 1 of 4 runs have no result" in page.text
    assert "92.00" in page.text
    assert "81.25" in page.text
    assert f"it broke {ATTACK}" in page.text
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) >= 2
    assert all((picture["src"] or "").startswith("data:image/") for picture in pictures)
    assert all(picture["alt"] for picture in pictures)
    assert [path.name for path in directory.iterdir() if path.name not in ("runs", "logs", "sweep.json")] == []


def test_a_sweep_without_a_result_says_so(tmp_path: Path) -> None:
    directory = made.sweep(tmp_path / "s", {"seed": [0, 1]}, {})
    page = Page(sweep_page.render(directory))
    assert "not finished: 2 of 2 runs have no result" in page.text
    assert "The runs cannot be compared: " in page.text
    with pytest.raises(UsageError, match="holds no sweep"):
        sweep_page.render(tmp_path)


def test_the_command_knows_a_sweep(convjax: Command, tmp_path: Path) -> None:
    directory = made.sweep(tmp_path / "s", {"seed": [0, 1]}, {(0,): 0.5, (1,): 0.6})
    done = convjax("report", directory)
    assert done.returncode == 0, done.stderr
    assert "comparing the 2 runs of the sweep" in done.stdout
    assert "55.00" in (directory / "report.html").read_text()
