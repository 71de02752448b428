import json
from collections.abc import Callable
from pathlib import Path

import pytest

from convjax.digest import digest
from convjax.errors import RunError
from convjax.train.log import Mark, MetricsLog, accuracies, parse


def test_lines_are_objects_with_their_step(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"train.loss": 0.1})
        log.write_timings(1, {"train.images_per_second": 3.0})
        # On disk at once: a run that is killed loses no line.
        assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "train.loss": 0.1}


def test_what_was_logged_after_the_checkpoint_is_taken_back(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in range(1, 6):
            log.write(step, {"x": step})
            if step == 3:
                mark = log.sync()
    content = (tmp_path / "metrics.jsonl").read_bytes()
    assert mark == Mark(mark.bytes, digest(content[: mark.bytes]))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "x')
    with MetricsLog(tmp_path, step=3, mark=mark) as log:
        log.write(4, {"x": 40})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["x"] for line in lines] == [1, 2, 3, 40]


def damage(content: bytes) -> bytes:
    return content.replace(b"0.5", b"0.6")


@pytest.mark.parametrize("damaged", [damage, lambda content: content[:20], lambda content: None])
def test_a_log_that_is_not_what_a_checkpoint_saw_is_refused_and_left(
    tmp_path: Path, damaged: Callable[[bytes], bytes | None]
) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"validation.accuracy": 0.5})
        mark = log.sync()
    path = tmp_path / "metrics.jsonl"
    content = damaged(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged: .* when the checkpoint of step 1 was saved"):
        MetricsLog(tmp_path, step=1, mark=mark)
    assert (path.read_bytes() if path.exists() else None) == content


def test_accuracies_are_read_while_a_line_is_being_written() -> None:
    lines = b'{"step": 1, "train.loss": 2.0}\n{"step": 1, "validation.accuracy": 0.5}\n{"step": 2, "validation.acc'
    assert accuracies(parse(lines)) == {1: 0.5}


@pytest.mark.parametrize("line", ["no json", "[1]", '{"validation.accuracy": 1.0}'])
def test_a_damaged_line_is_named_by_its_number(line: str) -> None:
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged: line 2 is not one of metrics"):
        parse(f'{{"step": 1}}\n{line}\n'.encode())


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"train.loss": float("nan"), "train.gradient_norm": float("inf")})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "train.loss": null, "train.gradient_norm": null}\n'
