"""The documentation names functions, tests, figures and pages: all of them are there."""

import ast
import re
import runpy
from pathlib import Path

import pytest
from PIL import Image
from real_command import ROOT

DOCS = ROOT / "docs"
COURSE = sorted((DOCS / "course").glob("*.md"))
FORMAL = [page for page in COURSE if page.stem not in ("README", "cheat_sheet")]
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def links(page: Path) -> list[tuple[bool, str, Path]]:
    """Returns (is a picture, text, file) of each link of a page to a file."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = [match.groups() for match in LINK.finditer(text)]
    return [
        (bool(mark), words, (page.parent / target.split("#")[0]).resolve())
        for mark, words, target in found
        if "://" not in target
    ]


def named(file: Path) -> set[str]:
    """Returns the names of what a Python file defines: functions, classes, methods, constants."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def code_links(page: Path) -> list[tuple[str, Path]]:
    """Returns (name, file) of each link from a name in code to a Python file."""
    names = [(words.strip("`"), file) for _, words, file in links(page) if words.startswith("`")]
    return [(name, file) for name, file in names if name.isidentifier() and file.suffix == ".py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_every_named_function_is_in_it(page: Path) -> None:
    for _, words, file in links(page):
        assert file.exists(), f"[{words}] leads to {file}, which is not there"
    for name, file in code_links(page):
        assert name in named(file), f"{file.relative_to(ROOT)} defines no {name}"


@pytest.mark.parametrize("page", FORMAL, ids=lambda page: page.stem)
def test_a_formal_page_has_formula_figure_function_and_test(page: Path) -> None:
    text = page.read_text()
    assert re.search(r"\$\$.+?\$\$", text, re.DOTALL)
    assert len(text.splitlines()) <= 50, "formal pages are short"
    pictures = [file for is_picture, words, file in links(page) if is_picture and words]
    assert pictures
    for picture in pictures:
        with Image.open(picture) as image:
            image.verify()
    code = code_links(page)
    tests = [name for name, file in code if file.is_relative_to(ROOT / "tests") and name.startswith("test_")]
    functions = [name for name, file in code if file.is_relative_to(ROOT / "convjax")]
    assert tests
    assert functions


def test_every_figure_is_drawn_by_the_program_and_shown_on_a_page() -> None:
    drawn = set(runpy.run_path(str(DOCS / "figures.py"))["FIGURES"])
    assert drawn == {file.stem for file in (DOCS / "course").glob("*.png")}
    assert drawn == {file.stem for page in FORMAL for is_picture, _, file in links(page) if is_picture}


def test_the_course_lists_all_its_pages() -> None:
    listed = {file for _, _, file in links(DOCS / "course" / "README.md")}
    assert {page.resolve() for page in COURSE if page.stem != "README"} <= listed


def test_pictures_of_the_documentation_are_small() -> None:
    for file in DOCS.rglob("*.png"):
        assert file.stat().st_size < 400_000, file
