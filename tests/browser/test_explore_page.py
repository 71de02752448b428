"""The explorer as it is used: real command, real browser."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from real_command import Command
from served import explorer

from convjax import ops
from convjax.data import sources
from convjax.explore.operations import KERNELS

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def address(trained: Path) -> Iterator[str]:
    with explorer(trained) as found:
        yield found


@pytest.fixture
def opened(chromium: Browser, address: str) -> Iterator[Open]:
    """Opens the page; in the end nothing may stand in the browser's console."""
    context: Any = None
    messages: list[str] = []

    def open_page(**settings: Any) -> Page:
        nonlocal context
        context = chromium.new_context(**settings)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(address)
        page.locator("#convolution .result b").wait_for()
        return page

    yield open_page
    context.close()
    # A refused upload is an answer 400, which Chromium itself notes.
    assert [m for m in messages if "status of 400" not in m] == []


def field(page: Page, name: str) -> Locator:
    """A control of the operation that is shown."""
    return page.locator(f"[role=tabpanel]:visible form [name={name}]")


def settled(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("aria-busy", "false", timeout=60_000)


def photograph() -> Any:
    """The grey values of the flower as the page shows it at 32 pixels: `[1, 21, 32, 1]`."""
    from sklearn.datasets import load_sample_image

    grey = Image.fromarray(load_sample_image("flower.jpg")).convert("L").resize((32, 21), Image.Resampling.BOX)
    return np.asarray(grey, np.float32)[None, ..., None] / np.float32(255)


def numbers(page: Page, kind: str) -> list[float]:
    texts = page.locator(f"[role=tabpanel]:visible .{kind} td").all_inner_texts()
    return [float(text.replace("\u2212", "-")) for text in texts]


def result(page: Page) -> float:
    return float(page.locator("[role=tabpanel]:visible .result b").inner_text().replace("\u2212", "-"))


def point_at(page: Page, row: int, column: int, rows: int, columns: int) -> None:
    canvas = page.locator("[role=tabpanel]:visible canvas.output")
    box = canvas.bounding_box()
    assert box is not None
    canvas.hover(position={"x": (column + 0.5) * box["width"] / columns, "y": (row + 0.5) * box["height"] / rows})
    expect(canvas).to_have_attribute("data-row", str(row))
    expect(canvas).to_have_attribute("data-column", str(column))


def use_flower(page: Page) -> None:
    field(page, "side").select_option("32")
    page.locator("#images label", has_text="flower").click()
    expect(page.locator("#convolution figcaption").first).to_contain_text("21 \u00d7 32")
    settled(page)


@pytest.mark.parametrize(("kernel", "padding"), [("Sobel x", "SAME"), ("Gaussian blur", "VALID"), ("Emboss", "2")])
def test_the_numbers_of_a_pointed_pixel_are_those_convjax_computes(opened: Open, kernel: str, padding: str) -> None:
    page = opened()
    use_flower(page)
    for name, value in (("name", kernel), ("padding", padding)):
        field(page, name).select_option(value)
    field(page, "stride").fill("2")
    field(page, "dilation").fill("2")
    settled(page)

    weights = np.array(KERNELS[kernel], np.float32)
    given: Any = int(padding) if padding.isdecimal() else padding
    x = photograph()
    y = np.asarray(ops.conv2d(x, jnp.asarray(weights)[:, :, None, None], stride=2, padding=given, dilation=2))
    rows, columns = y.shape[1:3]
    expect(page.locator("#convolution figcaption").nth(1)).to_contain_text(f"{rows} \u00d7 {columns}")
    row, column = rows - 2, 1
    point_at(page, row, column, rows, columns)

    span = 2 * (len(weights) - 1) + 1
    pad = {"VALID": 0, "2": 2, "SAME": (2 * (-(-21 // 2) - 1) + span - 21) // 2}[padding]
    left = pad if padding != "SAME" else (2 * (-(-32 // 2) - 1) + span - 32) // 2
    padded = np.pad(x[0, ..., 0], 8)
    top, start = row * 2 - pad + 8, column * 2 - left + 8
    window = padded[top : top + span : 2, start : start + span : 2]
    np.testing.assert_allclose(numbers(page, "window"), window.ravel(), atol=0.00501)
    np.testing.assert_allclose(numbers(page, "products"), (window * weights).ravel(), atol=0.00501)
    assert result(page) == pytest.approx(y[0, row, column, 0], abs=5.1e-5)


def test_a_kernel_is_typed_and_outlives_a_reload(opened: Open) -> None:
    page = opened()
    use_flower(page)
    field(page, "name").select_option("Identity")
    settled(page)
    cell = page.get_by_label("kernel row 1, column 1")
    cell.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("-1.5")
    expect(field(page, "name")).to_have_value("My own")
    expect(cell).to_have_value("-1.5")
    settled(page)
    point_at(page, 10, 20, 21, 32)
    assert result(page) == pytest.approx(-1.5 * photograph()[0, 10, 20, 0], abs=5.1e-5)
    page.reload()
    expect(page.get_by_label("kernel row 1, column 1")).to_have_value("-1.5")
    expect(page.locator("#images :checked")).to_have_value(re.compile("example"))


def test_what_does_not_fit_gets_a_message_and_leaves_the_picture(opened: Open) -> None:
    page = opened()
    field(page, "side").select_option("8")
    field(page, "padding").select_option("VALID")
    settled(page)
    before = page.locator("#convolution figcaption").nth(1).inner_text()
    field(page, "dilation").fill("8")
    expect(page.get_by_role("alert")).to_contain_text("a window spanning 17 pixels does not fit into 8")
    assert page.locator("#convolution figcaption").nth(1).inner_text() == before
    field(page, "dilation").fill("1")
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_shows_its_window(opened: Open, kind: str) -> None:
    page = opened()
    use_flower(page)
    page.get_by_role("tab", name="Pooling").click()
    field(page, "kind").select_option(kind)
    field(page, "window").fill("3")
    settled(page)
    pool = ops.max_pool if kind == "max" else ops.avg_pool
    y = np.asarray(pool(photograph(), 3, stride=2))
    point_at(page, 4, 7, *y.shape[1:3])
    window = photograph()[0, 8:11, 14:17, 0]
    np.testing.assert_allclose(numbers(page, "window"), window.ravel(), atol=0.00501)
    assert result(page) == pytest.approx(y[0, 4, 7, 0], abs=5.1e-5)
    assert page.locator("#pooling .chosen").count() == (kind == "max")


def test_batch_norm_brings_the_histogram_to_mean_0_and_deviation_1(opened: Open) -> None:
    page = opened()
    use_flower(page)
    page.get_by_role("tab", name="Batch norm").click()
    expect(page.locator("#after .deviation-value")).to_have_text("1.000", timeout=60_000)
    expect(page.locator("#after .mean-value")).to_have_text("0.000")
    field(page, "mode").select_option("evaluation")
    field(page, "steps").fill("0")
    # Running statistics start as mean 0 and variance 1: nothing changes but by epsilon.
    before = page.locator("#before .deviation-value").inner_text()
    expect(page.locator("#after .deviation-value")).to_have_text(before)


def test_all_goes_by_keyboard(opened: Open) -> None:
    page = opened()
    use_flower(page)
    # From the images on: tab key to each control in turn, then along the tabs, and into the picture.
    page.locator("#images :checked").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#images label", has_text="china").locator("input")).to_be_checked()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "upload"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Pooling")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowLeft")
    settled(page)
    for _ in range(8):
        page.keyboard.press("Tab")
    output = page.locator("#convolution canvas.output")
    expect(output).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    row, column = (int(str(output.get_attribute(f"data-{name}"))) for name in ("row", "column"))
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert output.get_attribute("data-row") == str(row + 2)
    assert output.get_attribute("data-column") == str(column - 7)
    expect(page.locator("#spoken")).to_contain_text(f"row {row + 2}, column {column - 7}")


def test_uploads_work_or_say_why_not_and_their_names_are_no_markup(opened: Open) -> None:
    page = opened()
    settled(page)
    chosen = page.locator("#images :checked").get_attribute("value")
    files = page.locator("#upload")
    files.set_input_files({"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n and no more"})
    expect(page.get_by_role("alert")).to_contain_text("not an image that Pillow can read")
    assert page.locator("#images :checked").get_attribute("value") == chosen
    assert page.locator("#convolution .result b").is_visible()

    red = io.BytesIO()
    Image.new("RGB", (12, 12), (255, 0, 0)).save(red, "PNG")
    name = "<img src=x onerror=alert(1)>.png"
    files.set_input_files({"name": name, "mimeType": "image/png", "buffer": red.getvalue()})
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#images label").last).to_have_text(name)
    expect(page.locator("#images label").last.locator("input")).to_be_checked()
    field(page, "channel").select_option("red")
    field(page, "name").select_option("Identity")
    settled(page)
    assert result(page) == 1
    page.reload()
    expect(page.locator("#images label").last.locator("input")).to_be_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(opened: Open, scheme: Any) -> None:
    page = opened(viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    for name in ("Convolution", "Pooling", "Batch norm", "Network"):
        page.get_by_role("tab", name=name).click()
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, name
    page.get_by_role("tab", name="Convolution").click()
    field(page, "size").select_option("7")
    field(page, "channel").select_option("all")
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    # The arithmetic follows a finger.
    page.locator("#convolution canvas.output").tap(position={"x": 5, "y": 5})
    assert page.locator("#convolution canvas.output").get_attribute("data-column") == "0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_background(opened: Open, scheme: Any) -> None:
    page = opened(color_scheme=scheme)
    colours = page.evaluate(
        "names => names.map((n) => getComputedStyle(document.documentElement).getPropertyValue(n))",
        ["--ink", "--quiet", "--accent", "--bad", "--paper", "--card", "--bad-soft"],
    )
    ink, quiet, accent, bad, paper, card, bad_soft = map(luminance, colours)
    # WCAG 2.2, success criterion 1.4.3: at least 4.5 to 1.
    pairs = [(ink, paper), (ink, card), (quiet, paper), (quiet, card), (accent, paper), (bad, bad_soft)]
    for first, second in pairs:
        assert (max(first, second) + 0.05) / (min(first, second) + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """The relative luminance of `#rgb` or `#rrggbb` (WCAG 2.2)."""
    digits = colour.strip().removeprefix("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    values = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_class_probabilities_are_those_of_predict(
    opened: Open, convjax: Command, trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "digit.png"
    Image.fromarray(sources.digits().test.images[5, ..., 0]).resize((40, 24)).save(file)
    done = convjax("predict", trained, file)
    assert done.returncode == 0, done.stderr
    expected = [line.split() for line in done.stdout.splitlines()[1:]]

    page = opened()
    page.get_by_role("tab", name="Network").click()
    page.locator("#classes tr").first.wait_for()
    page.locator("#upload").set_input_files(file)
    expect(page.locator("#images label").last.locator("input")).to_be_checked()
    settled(page)
    rows = [row.inner_text().split() for row in page.locator("#classes tr").all()]
    assert [(share, name) for share, _, name in expected] == [(share, name) for name, share, _ in rows[:5]]
    shares = [float(str(row.get_attribute("data-probability"))) for row in page.locator("#classes tr").all()]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
