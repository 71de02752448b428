"""What varies: axes read, combined, and refused, before anything is trained."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from convjax.cli.experiment import parse_flags
from convjax.errors import UsageError
from convjax.sweep import axes, check
from convjax.sweep.trials import Trial, expand
from convjax.train import experiment
from convjax.train.experiment import Experiment

EXPERIMENT = """
import flax.linen as nn
from convjax.models import MLP
from convjax.train.config import Config, DataConfig, TrainConfig


class Linear(nn.Module):
    bias: bool = True

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(10, use_bias=self.bias)(images.reshape(len(images), -1))


config = Config(
    model=MLP(hidden=(16,)),
    data=DataConfig("digits"),
    train=TrainConfig(length="20 steps", batch_size=50, evaluate_every="10 steps"),
)
axes = {
    "model": {"mlp": MLP(hidden=(8,)), "linear": Linear()},
    "recipe": {"slow": {"optim.lr": 0.01}, "fast": {"optim.lr": 0.3, "optim.nesterov": False}},
    "seed": range(3),
}


def keep(settings):
    return settings["model"] == "mlp" or settings["seed"] == 0
"""


def read(directory: Path, text: str = EXPERIMENT) -> Experiment:
    path = directory / "varied.py"
    path.write_text(text)
    return experiment.read(path)


def combine(found: Experiment, given: Sequence[str] = (), flags: Sequence[str] = ()) -> list[Trial]:
    varied = {axis.name: axis for axis in axes.of_file(found)}
    varied |= {axis.name: axis for axis in (axes.of_command(text, found) for text in given)}
    return expand(list(varied.values()), flags, lambda flags: parse_flags("sweep", found, flags).config, found.keep)


def test_a_file_gives_all_combinations_that_it_keeps(tmp_path: Path) -> None:
    trials = combine(read(tmp_path))
    # 2 models x 2 recipes x 3 seeds, without seeds 1 and 2 of the linear model in both recipes
    assert len(trials) == 12 - 4
    assert [str(trial) for trial in trials[:4]] == [
        "model=mlp recipe=slow seed=0",
        "model=mlp recipe=slow seed=1",
        "model=mlp recipe=slow seed=2",
        "model=mlp recipe=fast seed=0",
    ]
    assert [type(trial.config.model).__name__ for trial in trials] == ["MLP"] * 6 + ["Linear"] * 2
    assert [trial.config.optim.lr for trial in trials] == [0.01] * 3 + [0.3] * 3 + [0.01, 0.3]
    assert [trial.config.optim.nesterov for trial in trials] == [True] * 3 + [False] * 3 + [True, False]
    assert [trial.config.seed for trial in trials] == [0, 1, 2, 0, 1, 2, 0, 0]


GIVEN = [
    "model=mlp",
    "seed=7",
    "model.hidden=4,32 16",
    "optim.weight_decay=0,1e-3",
    "optim.clip_norm=none,1",
    "data.augment.crop.padding=0,1",
    "optim.momentum=0.5",
]


def test_the_command_line_gives_values_of_the_fields_own_types(tmp_path: Path) -> None:
    trials = combine(read(tmp_path), [*GIVEN, "recipe=slow", "train.length=5 steps,2 epochs"])
    assert len(trials) == 2**5
    configs = [trial.config for trial in trials]
    assert {config.model.hidden for config in configs} == {(4,), (32, 16)}
    assert {config.optim.clip_norm for config in configs} == {None, 1.0}
    assert {config.optim.weight_decay for config in configs} == {0.0, 0.001}
    assert {config.train.length for config in configs} == {"5 steps", "2 epochs"}
    assert {config.data.augment.crop.padding for config in configs} == {0, 1}
    # JSON knows no tuples.
    assert trials[0].settings["model.hidden"] == [4]


def test_ranges_of_whole_numbers_include_both_ends(tmp_path: Path) -> None:
    trials = combine(read(tmp_path), ["model=mlp", "recipe=slow", "seed=3..5,9"])
    assert [trial.config.seed for trial in trials] == [3, 4, 5, 9]


@pytest.mark.parametrize("given", [[], ["model=lenet5,plain20", "optim.nesterov=true,false", "recipe=slow"], GIVEN])
def test_the_flags_of_each_run_make_the_configuration_that_was_checked(tmp_path: Path, given: list[str]) -> None:
    found = read(tmp_path, EXPERIMENT.split("def keep")[0])
    for trial in combine(found, given, ["--train.log-every", "7"]):
        assert parse_flags("train", found, trial.flags).config == trial.config
        assert trial.config.train.log_every == 7


WRONG = {
    "optim.lrr=1": "axis optim.lrr: there is no such field: did you mean optim.lr",
    "optim=1": "axis optim: optim is a OptimConfig, no single value",
    "seed=a": "axis seed: 'a' is no value of seed: it must be a whole number",
    "seed=0,0": "axis seed has 0 twice",
    "seed=4..2": "axis seed: 4..2 is empty",
    "seed=1,,2": "axis seed: a value is missing",
    "seed": "'seed' is no axis: it must read like optim.lr=0.1,0.2 or seed=0..4",
    "seed=-1": "seed=-1: seed is -1: it must be from 0 to 2**32 - 1",
    "optim.momentum=0.1..0.9": "axis optim.momentum: 0.1..0.9 is no range of whole numbers",
    "optim.momentum=0.5,0.50": "axis optim.momentum has 0.5 twice",
    "optim.momentum=0.9,2": "optim.momentum=2.0: optim.momentum is 2.0: it must be from 0 to below 1",
    "optim.schedule=square": "axis optim.schedule: 'square' is no value of optim.schedule: it must be one of cosine",
    "optim.clip_norm=x": "axis optim.clip_norm: 'x' is no value of optim.clip_norm: it must be a number or None",
    "optim.lr=0.1": "axes recipe and optim.lr both set optim.lr",
    "model=resnet21": "axis model: there is no model 'resnet21': did you mean resnet",
    "model.hidden=4": "model=linear recipe=slow seed=0 model.hidden=(4,): the configuration has no field model.hidden",
    "recipe=fsat": "axis recipe has no arm 'fsat'",
    "train.batch_size=5000": "train.batch_size=5000: train.batch_size is 5000: it must be at most 1293",
    "optim.warmup=30 steps": "optim.warmup=30 steps: optim.warmup is 30 steps, 30 steps: the whole run has 20",
    "data.name=digitz": "data.name=digitz: there is no data set 'digitz': did you mean digits",
    "train.log_every=1,2": "are the same run: what they differ in has no part in its numbers",
}


@pytest.mark.parametrize(("given", "message"), WRONG.items(), ids=list(WRONG))
def test_what_is_wrong_is_named_by_axis_and_value(tmp_path: Path, given: str, message: str) -> None:
    found = read(tmp_path)
    with pytest.raises(UsageError, match=re.escape(message)):
        check.check(combine(found, [given]), found.path, here=True)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("{'seed': 3}", "axis seed is 3: it must be a list of values, or a dict of arms by name"),
        ("{'optim.schedule': 'cosine'}", "axis optim.schedule is 'cosine': it must be a list"),
        ("{'seed': []}", "axis seed has no value"),
        ("{'model': [MLP()]}", "axis model: a MLP has no short name; give it one"),
        ("{'model': {'a b': MLP()}}", "axis model: arm 'a b' must have a name without"),
        ("{'recipe': {'a': {'optim.lrr': 1}}}", "recipe=a: the configuration has no field optim.lrr"),
        ("{'recipe': {'a': {'optim.lr': -1}}}", "recipe=a: optim.lr is -1: it must be above 0"),
        ("[]", "`axes` is a list: it must be a dict"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, axes: str, message: str) -> None:
    before = EXPERIMENT.split("axes =")[0]
    with pytest.raises(UsageError, match=re.escape(message)):
        combine(read(tmp_path, f"{before}axes = {axes}\n"))


def test_keep_may_leave_out_everything_or_fail(tmp_path: Path) -> None:
    before = EXPERIMENT.split("def keep")[0]
    with pytest.raises(UsageError, match="`keep` leaves out every combination"):
        combine(read(tmp_path, f"{before}keep = lambda settings: False\n"))
    with pytest.raises(UsageError, match="model=mlp recipe=slow seed=0: `keep` fails: KeyError: 'nothing'"):
        combine(read(tmp_path, f"{before}keep = lambda settings: settings['nothing']\n"))


def test_a_flag_must_not_set_what_varies(tmp_path: Path) -> None:
    found = read(tmp_path)
    for flag in ("--seed", "--model", "--optim.lr"):
        with pytest.raises(UsageError, match=f"sets {flag[2:]}: leave out the flag"):
            combine(found, flags=[flag, "1"])


def digests(found: Experiment, given: Sequence[str] = (), flags: Sequence[str] = ()) -> dict[str, str]:
    return {str(run.trial): run.digest for run in check.check(combine(found, given, flags), found.path, here=True)}


def test_a_run_is_known_by_what_decides_on_its_numbers(tmp_path: Path) -> None:
    before = digests(read(tmp_path))
    assert len(set(before.values())) == 8
    # More values, other comments, another docstring, how often is logged: the runs there are stay the same.
    more = EXPERIMENT.replace("range(3)", "range(4)").replace("\nconfig", "\n# It was slow.\nconfig")
    after = digests(read(tmp_path, f'"""Found: nothing."""\n{more}'), flags=["--train.log-every", "3"])
    assert len(after) == 10
    assert before.items() <= after.items()
    # Another length: none is. Another code of the one model: those of the other are.
    assert not set(before.values()) & set(digests(read(tmp_path), flags=["--train.length", "21 steps"]).values())
    other = digests(read(tmp_path, EXPERIMENT.replace("nn.Dense(10,", "nn.Dense(10, name='head',")))
    same = {name for name, digest in before.items() if other[name] == digest}
    assert same == {name for name in before if name.startswith("model=mlp")}


def test_train_takes_an_arm_by_its_name(tmp_path: Path) -> None:
    found = read(tmp_path)
    config = parse_flags("train", found, ["--arm", "recipe=fast", "--arm=model=linear", "--model.no-bias"]).config
    assert (config.optim.lr, config.optim.nesterov, config.model.bias) == (0.3, False, False)
    for arm, message in {
        "recipe=x": "--arm recipe=x: axis recipe has no arm 'x': known are: slow, fast",
        "seed=1": "has no axis 'seed' with arms; those with are ['model', 'recipe']",
    }.items():
        with pytest.raises(UsageError, match=re.escape(message)):
            parse_flags("train", found, ["--arm", arm])
    with pytest.raises(UsageError, match=r"--arm recipe=slow: another arm sets optim\.lr as well"):
        parse_flags("train", found, ["--arm", "recipe=fast", "--arm", "recipe=slow"])
