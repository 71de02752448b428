"""A run's report as it is opened from disk."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser
from real_command import Command

pytestmark = pytest.mark.browser

LOUD = ("warning", "error")
"""What may not stand in the console; Bokeh notes there how long it took."""
DRAWN = """charts => charts.length > 0 && charts.every((chart) => {
    const colours = (canvas) => new Set(new Uint32Array(
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
    const canvases = (node) => [
        ...(node.tagName === "CANVAS" && node.width ? [node] : []),
        ...[...node.children, ...(node.shadowRoot?.children ?? [])].flatMap(canvases),
    ];
    return canvases(chart).some((canvas) => colours(canvas) > 10);
})"""
"""Says whether there are charts, and each has a canvas with a picture on it, Bokeh's own shadow trees included."""


def test_the_report_opens_from_disk_and_draws_its_charts(
    chromium: Browser, convjax: Command, trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    done = convjax("report", trained, "--out", file)
    assert done.returncode == 0, done.stderr

    context = chromium.new_context(offline=True)
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        messages: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: messages.append(message.text) if message.type in LOUD else None)
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        for charts in ("#curves [role=img]", "#answers [role=img]"):
            page.wait_for_function(f"selector => ({DRAWN})([...document.querySelectorAll(selector)])", arg=charts)
        assert messages == []
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        images = page.locator("img")
        assert images.count() > 0
        # Nothing sticks out on a phone.
        page.set_viewport_size({"width": 360, "height": 800})
        page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
        assert all(images.evaluate_all("every => every.map((image) => image.complete && image.naturalWidth > 0)"))
    finally:
        context.close()
