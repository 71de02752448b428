"""Runs that start from the weights of others."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from interrupted import StopsAt, bits
from test_exactness import STEPS, config

from convjax.data.images import Crop
from convjax.data.splits import DataInfo, Normalise
from convjax.errors import RunError, UsageError
from convjax.inspect.diff import diff
from convjax.inspect.replay import replay
from convjax.models import MLP, CifarResNet
from convjax.train import loop, transfer
from convjax.train import state as states
from convjax.train.config import Config, DataConfig, OptimConfig, TrainConfig
from convjax.train.evaluate import Trained, build, load_data
from convjax.train.interrupts import Interrupted
from convjax.train.parallel import Placement
from convjax.train.run import Run
from convjax.train.weights import Weights, flat

NAMES = tuple("abcdefg")


def weights_of(model: Any, image: tuple[int, int, int] = (8, 8, 3), names: tuple[str, ...] = NAMES) -> Weights:
    """Returns random weights; also the statistics are of no symmetry."""
    variables = jax.eval_shape(lambda: model.init(jax.random.key(1), jnp.zeros((1, *image)), train=False))
    generator = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: (0.1 + generator.random(x.shape)).astype(np.float32), variables)
    return Weights(
        model=model,
        image=image,
        class_names=names,
        normalise=Normalise((0.1, 0.3, 0.5)[: image[2]], (0.2, 0.2, 0.4)[: image[2]]),
        crop=Crop(),
        source={"file": "drawn"},
        variables=drawn,
    )


def info(image: tuple[int, int, int] = (8, 8, 1), names: tuple[str, ...] = tuple("0123456789")) -> DataInfo:
    channels = image[2]
    return DataInfo("d", "1", image, names, {"train": 500}, Normalise((0.0,) * channels, (1.0,) * channels), {})


def fitted(found: Weights, model: Any, data: DataInfo, *, new: tuple[str, ...] = ()) -> transfer.Start:
    """Returns what a run takes."""
    asked = Config(model=model, train=TrainConfig(length="9 steps", batch_size=8, init_from="there", init_new=new))
    _, shapes = build(asked, data, Placement.single())
    return transfer.fit(found, asked, shapes, data)


RESNET = CifarResNet(depth=8, width=4, num_classes=7)
HEAD = ("params/head/dense/bias", "params/head/dense/kernel")


def test_a_new_head_and_a_summed_stem_and_all_else_taken_bit_for_bit() -> None:
    found = weights_of(RESNET)
    start, there = fitted(found, RESNET.clone(num_classes=10), info()), flat(found.variables)
    assert sorted(start.new) == sorted(HEAD)
    assert start.changed == ("params/stem/conv/kernel",)
    assert start.taken.keys() == there.keys() - set(HEAD)
    for path in start.taken.keys() - set(start.changed):
        np.testing.assert_array_equal(start.taken[path], there[path])


def test_a_state_begins_with_what_is_taken_and_new_values_elsewhere() -> None:
    model = MLP(hidden=(4,))
    plain, taken = (
        states.init(model, optax.sgd(0.1), (2, 2, 1), 0, ema=True, taken=given)
        for given in ({}, {"params/dense1/kernel": np.ones((4, 4), np.float32)})
    )
    assert (taken.params["dense1"]["kernel"] == 1).all()
    np.testing.assert_array_equal(taken.params["head"]["kernel"], plain.params["head"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, taken.ema["params"], taken.params)


def test_a_grey_image_gives_the_logits_that_it_gave_in_three_channels() -> None:
    found = weights_of(RESNET)
    after = flax.traverse_util.unflatten_dict(dict(fitted(found, RESNET, info(names=NAMES)).taken), sep="/")
    grey = np.random.default_rng(2).normal(size=(4, 8, 8, 1)).astype(np.float32)
    logits: list[Any] = [
        RESNET.apply(variables, images, train=False)
        for variables, images in ((found.variables, np.repeat(grey, 3, axis=-1)), (after, grey))
    ]
    assert np.ptp(logits[0]) > 1
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (RESNET.clone(width=8), ["has in another shape: params/head/dense/kernel (should be (32, 7), is (16, 7))",
                                 "params/stage1_block1/conv1/conv/kernel (should be (3, 3, 8, 8), is (3, 3, 4, 4))",
                                 "model.width: 4 there, 8 in this run"]),
        (RESNET.clone(depth=14), ["it lacks: params/stage1_block2/conv1/conv/kernel", "model.depth: 8 there, 14"]),
        (RESNET.clone(norm="none"), ["should not have: batch_stats/stage1_block1/conv1/norm/mean", "'batch' there"]),
        (MLP(num_classes=7, hidden=(4,)), ["lacks: params/dense1/kernel", "should not have:", "MLP"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_listed_by_path(model: Any, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        fitted(weights_of(RESNET), model, info((8, 8, 3), NAMES))
    assert str(caught.value).startswith("train.init_from is there: the network of the weights does not fit; it ")
    for part in parts:
        assert part in str(caught.value)


def test_patterns_make_new_what_was_there_or_need_not_fit() -> None:
    found = weights_of(RESNET.clone(attention="se", width=16))
    model = RESNET.clone(width=16, depth=14)
    start = fitted(found, model, info((8, 8, 3), NAMES), new=("*_block2/*", "*/squeeze_excite/*", "head/*"))
    assert all("_block2/" in path or "/head/" in path for path in start.new)
    assert {path.split("/")[1] for path in start.new} == {"head", *(f"stage{n}_block2" for n in (1, 2, 3))}
    assert len(start.left_out) == 3 * 4  # in each block two convolutions, each with its bias
    assert all("/squeeze_excite/" in path for path in start.left_out)
    with pytest.raises(UsageError, match=r"train\.init_new has 'heads/\*', which matches no .* head/dense/"):
        fitted(found, model, info((8, 8, 3), NAMES), new=("heads/*",))


def test_what_is_told_names_the_parts() -> None:
    start = fitted(weights_of(RESNET), RESNET.clone(num_classes=10, activation="gelu"), info())
    assert start.describe() == [
        f"starts from {len(start.taken)} arrays of there (file drawn), digest {start.digest}",
        "  new: params/head/dense/bias, params/head/dense/kernel",
        "  other input channels: params/stem/conv/kernel",
        "  model.activation is 'gelu', it was 'relu'",
    ]
    renamed = fitted(weights_of(RESNET), RESNET, info((8, 8, 3), tuple("gfedcba")))
    assert renamed.new == ()
    assert renamed.describe()[-1] == "  the classes have other names; --train.init-new 'head/*' makes the head anew"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.pth", r"w\.pth: it must be a directory, .*; convjax weights import makes one of a file"),
        ("nowhere", r"nowhere: there is no such directory"),
        ("empty", r"empty holds neither weights nor a run: it has no weights\.json and no config\.json"),
    ],
)
def test_where_there_are_no_weights_is_told(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("")
    (tmp_path / "empty").mkdir()
    asked = Config(model=RESNET, train=TrainConfig(init_from=str(tmp_path / name)))
    with pytest.raises(UsageError, match=f"train.init_from is .*{message}"):
        transfer.find(asked, Run(tmp_path / "run"))


def test_the_digest_is_that_of_the_numbers_and_of_their_normalisation() -> None:
    found = weights_of(RESNET)
    own = transfer.weights_digest(found)
    assert transfer.weights_digest(dataclasses.replace(found, source={"file": "renamed"})) == own
    bias = found.variables["params"]["head"]["dense"]["bias"]
    bias[0] = np.nextafter(bias[0], 1)
    assert transfer.weights_digest(found) != own
    bias[0] = np.nextafter(bias[0], 0)
    assert transfer.weights_digest(found) == own
    assert transfer.weights_digest(dataclasses.replace(found, normalise=Normalise((0.5,), (0.5,)))) != own


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the network that `test_exactness` has, on half of the digits."""
    run = Run(tmp_path_factory.mktemp("source") / "run")
    short = dataclasses.replace(config("resident", "float32"), seed=5)
    loop.train(dataclasses.replace(short, train=TrainConfig(length="6 steps", batch_size=64)), run)
    return run.path


def tuned(source: Path) -> Config:
    plain = config("resident", "float32")
    return dataclasses.replace(
        plain,
        optim=OptimConfig(lr=0.05, freeze=("conv/*", "norm/*"), rates=("head/bias=0.5",)),
        train=dataclasses.replace(plain.train, init_from=str(source)),
    )


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("tuned") / "run")
    loop.train(tuned(source), run)
    return run


def test_frozen_layers_end_in_the_bits_of_the_source(source: Path, undisturbed: Run) -> None:
    before, after = (Trained.read(run, "latest").state for run in (Run(source), undisturbed))
    for there, averaged in ((before.params, after.ema["params"]), (before.batch_stats, after.ema["batch_stats"])):
        for layer in there:
            pairs = [jax.tree.leaves(tree[layer]) for tree in (there, averaged)]
            same = [np.array_equal(a, b) for a, b in zip(*pairs, strict=True)]
            assert same == [layer != "head"] * len(same), layer


def test_a_stopped_run_goes_on_without_its_weights_to_the_same_bits(
    source: Path, undisturbed: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy, run, stops = tmp_path / "copy", Run(tmp_path / "run"), 0
    shutil.copytree(source, copy)
    for looks in (5, 2, 14):
        try:
            loop.train(tuned(copy), run, interrupts=StopsAt(looks))
        except Interrupted:
            stops += 1
            shutil.rmtree(copy, ignore_errors=True)
    loop.train(tuned(copy), run)
    assert stops == 3
    assert f"train.init_from is {copy}, which is no longer there" in caplog.text
    assert bits(run, STEPS) == bits(undisturbed, STEPS)


def test_the_first_steps_are_taken_again_from_the_weights(undisturbed: Run) -> None:
    found = replay(undisturbed, 3)
    assert (found.begun, found.differs()) == (0, [])
    assert found.logged is not None


def test_a_run_remembers_what_it_began_with(source: Path, undisturbed: Run, tmp_path: Path) -> None:
    known = json.loads((undisturbed.path / "init.json").read_text())
    assert known["path"] == str(source)
    assert known["source"] == {"run": "run", "checkpoint": str(Trained.read(Run(source), "best").checkpoint)}
    assert len(known["taken"]) == 8
    assert (known["new"], known["changed"], known["left_out"], known["model"]) == ([], [], [], {})
    found = diff(Run(source), undisturbed)
    assert found.weights["digest"] == ("absent", known["digest"])
    assert diff(undisturbed, undisturbed).weights == {}
    # The images are normalised as those of the source.
    assert undisturbed.read_info().normalise == Run(source).read_info().normalise


def test_other_weights_are_refused_and_the_same_ones_elsewhere_are_not(
    source: Path, undisturbed: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(undisturbed.path, run.path)
    shutil.copytree(source, tmp_path / "moved")
    moved = tuned(tmp_path / "moved")
    assert loop.train(moved, run) == loop.train(tuned(source), undisturbed)
    with pytest.raises(UsageError, match=r"began with other weights than train\.init_from holds now"):
        loop.train(tuned(undisturbed.path), run)
    with pytest.raises(UsageError, match=r"train\.init_from is .*nowhere: .*nowhere: there is no such directory"):
        loop.train(tuned(tmp_path / "nowhere"), run)
    without = dataclasses.replace(moved, train=dataclasses.replace(moved.train, init_from=None))
    with pytest.raises(UsageError, match=r"train\.init_from: '.*moved' there, None now"):
        loop.train(without, run)


def test_a_run_that_has_no_checkpoint_yet_needs_its_weights(source: Path, undisturbed: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(undisturbed.path, run.path, ignore=shutil.ignore_patterns("checkpoints", "result.json"))
    content = run.read_json("config.json")
    content["train"]["init_from"] = str(tmp_path / "gone")
    run.write("config.json", content)
    with pytest.raises(UsageError, match=r"train\.init_from is .*gone: .*there is no such directory"):
        loop.train(tuned(tmp_path / "gone"), run)
    (run.path / "init.json").write_text("{}")
    with pytest.raises(RunError, match=r"init\.json is damaged: it has no digest"):
        loop.train(tuned(source), run)


def test_images_are_normalised_as_the_weights_expect(tmp_path: Path) -> None:
    model = MLP(hidden=(4,), num_classes=10)
    found = weights_of(model, (8, 8, 1), tuple("0123456789"))
    found.write(tmp_path / "w")
    run = Run(tmp_path / "run")
    asked = Config(
        model=model,
        data=DataConfig("digits"),
        optim=OptimConfig(freeze=("dense1/*", "norm1/*")),
        train=TrainConfig(length="2 steps", batch_size=50, init_from=str(tmp_path / "w")),
    )
    loop.train(asked, run)
    assert run.read_info().normalise == Normalise((0.1,), (0.2,)) != load_data(asked).info.normalise
    # Whoever reads the run takes the same images: its own numbers come out again.
    trained = Trained.read(run, "latest")
    images = jnp.full((1, 8, 8, 1), 51, jnp.uint8)
    logits: Any = model.apply(trained.state.evaluated(), np.full((1, 8, 8, 1), 0.5, np.float32), train=False)
    np.testing.assert_allclose(trained.step.logits(trained.state, images), logits, rtol=1e-5)
    assert replay(run, 2).differs() == []
