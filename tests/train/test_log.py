import json
from pathlib import Path

import pytest

from convjax.errors import RunError
from convjax.train.log import MetricsLog, ProgressReport


def test_lines_are_objects_with_their_step(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, step=0) as log:
        log.write(1, {"train.loss": 0.1})
        log.write_events(1, {"train.images_per_second": 3.0})
        # On disk at once: a run that is killed loses no line.
        assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "train.loss": 0.1}


def test_what_was_logged_after_the_checkpoint_is_taken_back(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, step=0) as log:
        for step in range(1, 6):
            log.write(step, {"x": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "x')
    with MetricsLog(tmp_path, step=3) as log:
        log.write(4, {"x": 40})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["x"] for line in lines] == [1, 2, 3, 40]


@pytest.mark.parametrize("line", ["no json", '{"loss": 1}', "[1]"])
def test_a_damaged_log_is_named_by_line(tmp_path: Path, line: str) -> None:
    content = f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(RunError, match=r"metrics\.jsonl:2 is not a line of metrics"):
        MetricsLog(tmp_path, step=3)
    assert (tmp_path / "metrics.jsonl").read_text() == content


def test_progress_without_a_terminal_is_plain_lines_with_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReport(step=0, steps=4, batch_size=10, every=0.0) as progress:
        progress.advance(1, 2.5, 0.1)
        progress.advance(2, 2.0, 0.25)
        progress.say("[validation] 50 %")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step 2/4  loss 2.000  accuracy 25.0 %  ")
    assert "images/s" in lines[0]
    assert lines[0].endswith("s left")
    assert lines[1] == "[validation] 50 %"


def test_progress_on_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with ProgressReport(step=0, steps=4, batch_size=10) as progress:
        for step in range(1, 5):
            progress.advance(step, 1.25, 0.5)
    out = capsys.readouterr().out
    assert "━" in out
    for part in ("4/4", "loss 1.250", "accuracy 50.0 %", "images/s", "0:00:00"):
        assert part in out
