import base64
import dataclasses
import io
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from real_command import Command

from convjax.data import sources
from convjax.data.sources import Source
from convjax.inspect import health, replay
from convjax.report import charts, page, run_page
from convjax.report.speed import speed
from convjax.train import loop
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig
from convjax.train.evaluate import Trained, load_same_data
from convjax.train.metrics import Evaluation, calibration_error, reliability
from convjax.train.run import Run

ATTACK = "<script>alert(1)</script>"
IMAGE_ATTACK = '"><img src=x onerror=alert(2)>'


class Small(nn.Module):
    """A network with a dead channel, and a layer whose name is none for HTML."""

    width: int = 4

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(self.width, (3, 3), name="conv")(images)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Conv(3, (1, 1), name="<b>named")(nn.relu(x) * jnp.array([1.0, 1.0, 1.0, 0.0]))
        return nn.Dense(10, name="head")(x.mean(axis=(1, 2)))


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def headings(self) -> list[str]:
        return [tag for tag, _ in self.tags if tag in ("h1", "h2")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run whose classes, experiment and directory try to put scripts into the page."""
    plain = sources.digits()
    names = (ATTACK, IMAGE_ATTACK, *plain.class_names[2:])
    hostile = Source(plain.name, plain.version, names, plain.train, plain.test)
    directory = tmp_path_factory.mktemp("report") / "<script>alert(1)<"
    directory.mkdir()
    experiment = directory / "script>.py"
    experiment.write_text(f"# {ATTACK}\n")
    config = Config(
        model=Small(),
        data=DataConfig("digits"),
        optim=OptimConfig(momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant", lr=0.1),
        train=TrainConfig(length="6 steps", batch_size=40, evaluate_every="2 steps", log_every=1),
    )
    made = Run(directory / "run<img src=x onerror=alert(3)>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "digits", lambda: hostile)
        loop.train(config, made, experiment)
        yield made


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return run_page.render(run)


def test_no_text_of_a_users_becomes_html(html: str) -> None:
    page = Page(html)
    assert all("alert(" not in script for script in page.scripts)
    assert {name for _, attributes in page.tags for name in attributes if name.startswith("on")} == set()
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all((attributes["src"] or "").startswith("data:image/") for attributes in images)
    assert not any(tag == "b" for tag, _ in page.tags)
    for text in (ATTACK, IMAGE_ATTACK, "<b>named", "run<img src=x onerror=alert(3)>"):
        assert text in page.text


def test_the_page_needs_nothing_else_and_is_small(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), tag
        assert tag not in ("link", "iframe", "object", "base")
    assert len(html.encode()) < 5e6
    assert html.count("Bokeh Contributors") <= html.count("<script") < 6


def test_the_page_can_be_read_without_seeing(html: str) -> None:
    page = Page(html)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) > 4
    assert all((attributes["alt"] or "").strip() for attributes in images)
    assert page.headings()[0] == "h1"
    assert page.headings().count("h1") == 1
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert sum(tag == "caption" for tag, _ in page.tags) >= tables - 2  # fields and values tell for themselves
    assert ("html", {"lang": "en"}) in page.tags


def test_the_page_tells_the_result(run: Run, html: str) -> None:
    result = run.read_json("result.json")
    page = Page(html)
    assert f"{100 * result['test']['accuracy']:.2f} %" in page.text
    assert "not finished" not in page.text
    assert "optim.schedule" in page.text
    # The confusion matrix holds each example once.
    cells = html.split('<table class="matrix">')[1].split("</table>")[0].split("<td style=")[1:]
    counts = [int(cell.split(">")[1].split("<")[0] or 0) for cell in cells]
    assert sum(counts) == 360
    assert counts == np.ravel(result["test"]["confusion"]).tolist()


def test_an_unfinished_run_is_told_apart_and_its_test_split_not_looked_at(run: Run, tmp_path: Path) -> None:
    half = Run(tmp_path / "half")
    shutil.copytree(run.path, half.path)
    half.result.unlink()
    page = Page(run_page.render(half))
    assert "not finished: 6 of 6 steps are done" in page.text
    assert "Answers on the validation split" in page.text
    assert "test accuracy" not in page.text
    shutil.rmtree(half.checkpoints)
    (half.path / "metrics.jsonl").unlink()
    page = Page(run_page.render(half))
    assert "could not be looked at" in page.text
    assert "the run has no checkpoint yet" in page.text
    assert "Nothing has been logged yet" in page.text


def test_a_run_whose_data_are_gone_is_reported_without_them(run: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "digits", lambda: dataclasses.replace(sources.synthetic(8), name="digits"))
        text = Page(run_page.render(run)).text
    assert "could not be looked at: data set digits 1.0.0 is not as it was" in text
    assert "test accuracy" in text


def test_of_a_thousand_classes_the_worst_are_shown() -> None:
    accuracies = np.linspace(1.0, 0.0, 1000)
    per_class: dict[str, float | None] = {f"c{i}": float(a) for i, a in enumerate(accuracies)}
    per_class["c999"] = None
    table = np.arange(1000)[:, None] * 1000 + np.arange(1000)
    found = run_page.confusion(Evaluation("test", 1, 0.0, 0.5, 0.5, 0.0, per_class, table.tolist()))
    assert found.names == [f"c{i}" for i in range(998, 978, -1)]
    assert found.left_out == 980
    assert found.counts[0][:2] == [998998, 998997]
    assert found.accuracies[0] == accuracies[998]


def test_units_are_counted_layer_by_layer(run: Run) -> None:
    trained = Trained.read(run, "best")
    images = sources.digits().test.images[:50]
    found = health.units(trained.config.model, trained.state.evaluated(), trained.info.normalise, images)
    assert [(units.part, units.channels) for units in found] == [
        ("conv", 4),
        ("norm", 4),
        ("<b>named", 3),
        ("head", 10),
    ]
    assert [units.dead for units in found] == [0, 0, 0, 0]

    class Dead(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            zeros = jnp.array([1.0, 0.0, 1.0, 0.0])
            return nn.Sequential([lambda x: images[..., 0, :] * zeros], name="stage1_block1")(images)

    batch = np.arange(80, dtype=np.uint8).reshape(2, 5, 2, 4)
    (units,) = health.units(Dead(), {}, lambda x: jnp.asarray(x, jnp.float32), batch)
    values = batch[:, :, 0] * np.array([1.0, 0, 1, 0])
    assert (units.channels, units.dead) == (4, 2)
    np.testing.assert_allclose([units.mean, units.deviation], [values.mean(), values.std()], rtol=1e-5)
    np.testing.assert_allclose(units.zeros, (values == 0).mean(), rtol=1e-6)


def test_gradients_and_updates_are_those_of_the_next_step(run: Run) -> None:
    trained = Trained.read(run, "best")
    data = load_same_data(trained.config, trained.info, run)
    found = health.sizes(run, trained, data.splits["train"])
    assert [each.step for each in found] == sorted({*(each.step for each in found)})
    assert found[-1].step == 6
    first = next(each for each in found if each.step < 6)
    expected = replay.replay(run, first.step + 1).gradient_norms
    assert list(first.gradients) == list(expected)
    for layer, norm in expected.items():
        np.testing.assert_allclose(first.gradients[layer], norm, rtol=1e-5)
        # Plain gradient descent: the learning rate times the gradient.
        np.testing.assert_allclose(first.updates[layer], 0.1 * norm, rtol=1e-5)
    (statistics,) = health.norms(trained.state.evaluated())
    means = trained.state.batch_stats["norm"]["mean"]
    assert statistics.mean == (means.min(), means.max())


def test_bins_of_confidence_make_the_calibration_error() -> None:
    confidence = np.array([0.02, 0.5, 0.5, 0.97, 1.0], np.float32)
    right = np.array([False, True, False, True, True])
    counts, hits, sums = reliability(confidence, right)
    assert counts[[0, 7, 14]].tolist() == [1, 2, 2]
    assert hits[[0, 7, 14]].tolist() == [0, 1, 2]
    assert counts.sum() == 5
    np.testing.assert_allclose(sums[14], 1.97, rtol=1e-6)
    np.testing.assert_allclose(calibration_error(confidence, right), (0.02 + 0.0 + 0.03) / 5, rtol=1e-5)


def test_speed_is_of_the_log_and_has_a_share_only_on_its_own_machine(run: Run, tmp_path: Path) -> None:
    trained = Trained.read(run, "best")
    model, image = trained.config.model, trained.info.image
    found = speed(run, model, image)
    assert found is not None
    assert found.images > 0
    products = 64 * 9 * 4 + 64 * 4 * 3 + 3 * 10
    np.testing.assert_allclose(found.operations, 6 * products * found.images, rtol=1e-6)
    assert found.share is not None
    assert 0 < found.share < 1
    other = Run(tmp_path / "other")
    shutil.copytree(run.path, other.path)
    environment = other.read_json("environment.json")
    environment["machine"]["processor"] = "another"
    other.write("environment.json", environment)
    elsewhere = speed(other, model, image)
    assert elsewhere is not None
    assert elsewhere.share is None
    shutil.rmtree(other.path / "tensorboard")
    assert speed(other, model, image) is None


def test_a_report_of_photographs_stays_below_five_megabytes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (944, 944, 3), np.uint8)
    maps, error = Image.fromarray(noise), Image.fromarray(noise[:240, :470])
    size = 6 * len(page.picture(maps, 640)) + 12 * len(page.picture(error, 320)) + len(charts.library())
    assert size < 4.5e6
    with Image.open(io.BytesIO(base64.b64decode(page.picture(error, 320).partition(",")[2]))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (320, 163))
    assert page.picture(Image.new("L", (50, 20))).startswith("data:image/png;base64,")


def test_numbers_as_text() -> None:
    assert [page.number(x) for x in (1234567, 0.000123456, None, float("nan"))] == [
        "1,234,567",
        "0.0001235",
        "none",
        "none",
    ]
    assert page.flat({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "a.c": {}, "d": [1, 2]}


def test_the_command_writes_the_file(convjax: Command, trained: Path, tmp_path: Path) -> None:
    done = convjax("report", trained, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'page.html'}: 1." in done.stdout
    assert "scoring 360 examples of the test split" in done.stdout
    assert "<h1>tiny</h1>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("target", "flags", "message"),
    [
        ("nothing", [], "nothing: there is no such directory"),
        (".", [], "holds no run: it has no config.json"),
    ],
)
def test_wrong_usage_is_told(convjax: Command, tmp_path: Path, target: str, flags: list[str], message: str) -> None:
    done = convjax("report", target, *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_file_that_cannot_be_written_is_named(convjax: Command, trained: Path) -> None:
    done = convjax("report", trained, "-o", "/proc/none/page.html")
    assert done.returncode == 2
    assert "--out /proc/none/page.html cannot be written" in done.stderr
