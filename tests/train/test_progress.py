import pytest

from convjax.train.progress import ProgressReport


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
