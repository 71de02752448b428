"""The configuration of a run: frozen dataclasses, checked when they are made. No option lives elsewhere."""

import dataclasses
import math
import re
from typing import Annotated, Any, Literal, TypeAlias

import flax.linen as nn
import tyro

from convjax.data.augment import Augment
from convjax.data.loader import Kind
from convjax.errors import UsageError, check_choices

FLAX_FIELDS = {"parent", "name"}
"""Fields that Flax adds to each module."""

Mode: TypeAlias = Literal["jit", "shard_map", "pmap"]

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?)\s*")


def _require(condition: bool, field: str, value: object, right: str) -> None:
    if not condition:
        raise UsageError(f"{field} is {value}: it must be {right}")


def parse_duration(field: str, duration: str) -> tuple[float, Literal["steps", "epochs"]]:
    """Returns number and unit of "500 steps" or "1.5 epochs".

    Raises:
        UsageError: `duration`, the value of `field`, reads otherwise.
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise UsageError(f"{field} is {duration!r}: it must read like '500 steps' or '5 epochs'")
    return float(match[1]), "steps" if match[2].startswith("step") else "epochs"


def parse_rate(field: str, rate: str) -> tuple[str, float]:
    """Returns pattern and factor of "stage1*/*=0.1".

    Raises:
        UsageError: `rate`, one of the values of `field`, reads otherwise.
    """
    pattern, _, factor = rate.rpartition("=")
    try:
        number = float(factor)
    except ValueError:
        number = math.nan
    right = "a pattern and a factor above 0, as 'stage1*/*=0.1' (optim.freeze is for what does not learn)"
    _require(bool(pattern) and 0 < number < math.inf, f"a value of {field}", repr(rate), right)
    return pattern, number


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which examples, and what is done to them."""

    name: str = "digits"
    """digits, synthetic, or a TFDS set: name, name/config or name:1.2.3."""
    directory: str | None = None
    """TFDS data directory; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    image_size: int | None = None
    """Side in pixels to which images are resized and cropped; None keeps them as they are."""
    validation: float = 0.1
    """Share of the train split that is kept apart to choose the best checkpoint by; 0 uses all for training."""
    feed: Kind = "resident"
    """resident: whole splits on the device; streamed: read from disk ahead of the step, each process its own rows."""
    augment: Augment = Augment()
    examples: int | None = None
    """How many examples of the train split to take, by a fixed rule and before the validation split is cut off; None
    takes all."""
    permute_pixels: int | None = None
    """Seed of one permutation that the pixels of every image of every split are put in; None leaves them in order."""

    def __post_init__(self) -> None:
        check_choices(self, "data")
        _require(0 <= self.validation < 1, "data.validation", self.validation, "from 0 to below 1")
        _require(self.image_size is None or self.image_size >= 1, "data.image_size", self.image_size, "at least 1")
        _require(self.examples is None or self.examples >= 1, "data.examples", self.examples, "at least 1")
        seed = self.permute_pixels
        _require(seed is None or 0 <= seed < 2**32, "data.permute_pixels", seed, "from 0 to 2**32 - 1, or None")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning-rate schedule, weight decay, clipping."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum, decay added to the gradient; adamw: decay apart from it (arXiv:1711.05101)."""
    lr: float = 0.1
    """Highest learning rate."""
    momentum: float = 0.9
    """Decay of sgd's momentum, or adamw's beta 1."""
    nesterov: bool = True
    """Whether sgd's momentum is Nesterov's."""
    beta2: float = 0.999
    """Decay of adamw's second moment."""
    weight_decay: float = 5e-4
    """Coefficient of the decay."""
    decay: tuple[str, ...] = ("*/kernel",)
    """Patterns of the parameters that decay, as stage1_block1/conv1/conv/kernel or */kernel."""
    no_decay: tuple[str, ...] = ("*/bias", "*/scale")
    """Patterns of those that do not. Each parameter must match in exactly one of both lists."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up: to 0 by a cosine, down by steps, or not at all."""
    warmup: str = "0 steps"
    """Length of the linear warm-up, as "500 steps" or "5 epochs"."""
    drops: tuple[float, ...] = (0.5, 0.75)
    """Where schedule step lowers the rate, as shares of the run's length."""
    drop_factor: float = 0.1
    """What schedule step multiplies the rate by at each drop."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; None does not clip."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that stay as they are, as stem/* or stage1*/*: not updated, not decayed."""
    freeze_statistics: bool = True
    """Whether batch norms below such a pattern normalise by their stored statistics, and keep these."""
    rates: tuple[str, ...] = ()
    """Factors on the learning rate of some parameters, as stage4*/*=0.1; each may match in one pattern."""

    def __post_init__(self) -> None:
        check_choices(self, "optim")
        _require(self.lr > 0, "optim.lr", self.lr, "above 0")
        _require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "from 0 to below 1")
        _require(0 <= self.beta2 < 1, "optim.beta2", self.beta2, "from 0 to below 1")
        _require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "at least 0")
        _require(0 < self.drop_factor <= 1, "optim.drop_factor", self.drop_factor, "above 0 and at most 1")
        rising = all(a < b for a, b in zip((0.0, *self.drops), (*self.drops, 1.0), strict=True))
        _require(rising, "optim.drops", self.drops, "rising shares between 0 and 1")
        _require(self.clip_norm is None or self.clip_norm > 0, "optim.clip_norm", self.clip_norm, "above 0 or None")
        parse_duration("optim.warmup", self.warmup)
        for rate in self.rates:
            parse_rate("optim.rates", rate)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batches, loss, and how often the run is looked at."""

    length: str = "10 epochs"
    """Length of the run, as "64000 steps" or "90 epochs"."""
    batch_size: int = 128
    """Examples a step."""
    accumulate: int = 1
    """Micro-batches that a batch is taken in, one after the other, to need less memory."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes (arXiv:1512.00567)."""
    ema: float = 0.0
    """Decay of the moving averages of weights and batch statistics, which then are evaluated; 0 keeps none."""
    evaluate_every: str = "1 epochs"
    """How often the validation split is evaluated and a checkpoint saved; not again shortly before the end."""
    checkpoint_every: str | None = None
    """How often a checkpoint is saved besides; None only with evaluations and at the end."""
    log_every: int = 50
    """Steps between two lines of training metrics."""
    on_nonfinite: Annotated[Literal["stop", "skip"], tyro.conf.arg(aliases=("--on-nonfinite",))] = "stop"
    """What a loss or gradient that is not finite does: stop the run, or have this one update left out and counted."""
    init_from: Annotated[str | None, tyro.conf.arg(aliases=("--init-from",))] = None
    """Weights to start from: a directory that `convjax weights import` made, or a run's, of which it takes the best."""
    init_new: tuple[str, ...] = ()
    """Patterns of parameters that are initialised although init_from has them, as head/*, or that it need not fit."""
    nonfinite_limit: int = 10
    """Updates that may be left out in the whole run; one more stops it."""

    def __post_init__(self) -> None:
        check_choices(self, "train")
        _require(self.batch_size >= 1, "train.batch_size", self.batch_size, "at least 1")
        _require(self.accumulate >= 1, "train.accumulate", self.accumulate, "at least 1")
        _require(
            self.batch_size % max(self.accumulate, 1) == 0,
            "train.accumulate",
            self.accumulate,
            f"a divisor of train.batch_size {self.batch_size}",
        )
        _require(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "from 0 to below 1")
        _require(0 <= self.ema < 1, "train.ema", self.ema, "from 0 to below 1")
        _require(self.log_every >= 1, "train.log_every", self.log_every, "at least 1")
        _require(self.nonfinite_limit >= 0, "train.nonfinite_limit", self.nonfinite_limit, "at least 0")
        for field in ("length", "evaluate_every", "checkpoint_every"):
            if (value := getattr(self, field)) is None:
                continue
            count, _ = parse_duration(f"train.{field}", value)
            _require(count > 0, f"train.{field}", value, "longer than nothing")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How the batch is divided among devices and processes."""

    mode: Mode = "jit"
    """jit over a mesh with named shardings, shard_map, or pmap: the same numbers up to rounding."""
    devices: int | None = None
    """Devices to use, over all processes; None takes all."""
    batch_stats: Literal["global", "local"] = "global"
    """Whether batch norms take their statistics over the whole batch, or each device's over its own part."""
    shard_optimizer: bool = False
    """Whether each device keeps a part of the optimizer's state only (arXiv:1910.02054, stage 1); mode jit alone."""
    coordinator: str | None = None
    """HOST:PORT of process 0; None where SLURM, Open MPI or a Cloud TPU tell, or there is one process."""
    processes: int | None = None
    """Number of processes, with coordinator."""
    process_id: int | None = None
    """Which of them this is, counted from 0."""

    def __post_init__(self) -> None:
        check_choices(self, "parallel")
        _require(self.devices is None or self.devices >= 1, "parallel.devices", self.devices, "at least 1")
        _require(
            not self.shard_optimizer or self.mode == "jit", "parallel.shard_optimizer", True, "off unless mode is jit"
        )
        given = (self.coordinator is not None, self.processes is not None, self.process_id is not None)
        _require(
            len(set(given)) == 1,
            "parallel.coordinator",
            self.coordinator,
            "given together with parallel.processes and parallel.process_id",
        )
        if self.coordinator is not None:
            _require(
                re.fullmatch(r"[^:]+:\d+", self.coordinator) is not None,
                "parallel.coordinator",
                self.coordinator,
                "HOST:PORT",
            )
            count, own = self.processes or 0, self.process_id or 0
            _require(count >= 1, "parallel.processes", count, "at least 1")
            _require(0 <= own < count, "parallel.process_id", own, f"from 0 to {count - 1}")


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment: everything that decides its numbers."""

    model: nn.Module
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    seed: int = 0
    """Seed of initialisation, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")


def duration_steps(field: str, duration: str, steps_per_epoch: float) -> int:
    """Returns a duration in whole steps, the nearest number to it."""
    count, unit = parse_duration(field, duration)
    return round(count if unit == "steps" else count * steps_per_epoch)


def model_fields(model: nn.Module) -> dict[str, Any]:
    """Returns a model's own fields by name."""
    return {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in FLAX_FIELDS}
