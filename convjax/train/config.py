"""The configuration of a run: frozen dataclasses, checked when they are made. No option lives elsewhere."""

import dataclasses
import re
from typing import Annotated, Any, Literal, TypeAlias

import flax.linen as nn
import tyro

from convjax.data.augment import Augment
from convjax.data.few import Few
from convjax.data.images import Crop
from convjax.data.loader import Kind
from convjax.data.random_crop import ResizedCrop
from convjax.errors import check_choices, require
from convjax.train.losses import LossName
from convjax.train.optim_config import OptimConfig as OptimConfig
from convjax.train.values import parse_duration, rising
from convjax.train.wandb_log import WandbConfig

FLAX_FIELDS = {"parent", "name"}
"""Fields that Flax adds to each module."""

Mode: TypeAlias = Literal["jit", "shard_map", "pmap"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which examples, and what is done to them."""

    name: str = "digits"
    """digits, synthetic, a TFDS set (name, name/config, name:1.2.3), or a path: ./FOLDER, FILE.csv, .jsonl or .tar."""
    directory: str | None = None
    """TFDS data directory; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets. Or where a relative path begins."""
    image_size: int | None = None
    """Side in pixels to which images are resized and cropped; None keeps them as they are."""
    validation: float = 0.1
    """Share of the train split that is kept apart to choose the best checkpoint by; 0 uses all for training.
    Data that have both a validation and a test split of their own keep them."""
    feed: Kind = "resident"
    """resident: whole splits on the device; streamed: read from disk ahead of the step, each process its own rows."""
    augment: Augment = Augment()
    crop: Crop = Crop()
    """Of evaluation: share 0.875 at image_size 224 resizes the shorter side to 256 and cuts the centre out."""
    resized_crop: ResizedCrop = ResizedCrop()
    broken_limit: int = 0
    """Images that may be damaged, and are left out; one more is an error."""
    few: Few = Few()
    examples: int | None = None
    """How many examples of the train split to take, by a fixed rule and before the validation split is cut off; None
    takes all."""

    def __post_init__(self) -> None:
        check_choices(self, "data")
        require(self.examples is None or self.examples >= 1, "data.examples", self.examples, "at least 1")
        require(0 <= self.validation < 1, "data.validation", self.validation, "from 0 to below 1")
        require(self.broken_limit >= 0, "data.broken_limit", self.broken_limit, "at least 0")
        streamed = self.resized_crop.area is None or self.feed == "streamed"
        require(streamed, "data.feed", self.feed, "streamed with resized_crop")
        sized = self.crop.share == 1 or self.image_size is not None
        require(sized, "data.crop.share", self.crop.share, "1 without image_size")
        require(self.image_size is None or self.image_size >= 1, "data.image_size", self.image_size, "at least 1")


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
    loss_function: LossName = "softmax"
    """softmax: cross-entropy; sigmoid: binary cross-entropy of each class, averaged over classes (arXiv:2110.00476)."""
    loss_threshold: float | None = None
    """Target above which loss sigmoid counts a class as there; None takes mixed and smoothed targets as they are."""
    sizes: tuple[int, ...] = ()
    """Sides in pixels that training images are resized to, one after the other; none leaves them as they are."""
    sizes_at: tuple[float, ...] = ()
    """Where the second and the following of sizes begin, as shares of the run's length."""
    ema: float = 0.0
    """Decay of the moving averages of weights and batch statistics, which then are evaluated; 0 keeps none."""
    evaluate_every: str = "1 epochs"
    """How often the validation split is evaluated and a checkpoint saved; not again shortly before the end."""
    checkpoint_every: str | None = None
    """How often a checkpoint is saved besides; None only with evaluations and at the end."""
    keep: int = 2
    """How many of the latest checkpoints are kept, besides the best; `convjax average` takes as many."""
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
        require(self.batch_size >= 1, "train.batch_size", self.batch_size, "at least 1")
        require(self.accumulate >= 1, "train.accumulate", self.accumulate, "at least 1")
        require(
            self.batch_size % max(self.accumulate, 1) == 0,
            "train.accumulate",
            self.accumulate,
            f"a divisor of train.batch_size {self.batch_size}",
        )
        require(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "from 0 to below 1")
        sigmoid = "None or from 0 to below 1, with train.loss_function sigmoid alone"
        given = self.loss_threshold
        right = given is None or (self.loss_function == "sigmoid" and 0 <= given < 1)
        require(right, "train.loss_threshold", given, sigmoid)
        require(all(side >= 1 for side in self.sizes), "train.sizes", self.sizes, "at least 1 each")
        fits = rising(self.sizes_at) and len(self.sizes_at) == max(len(self.sizes) - 1, 0)
        require(fits, "train.sizes_at", self.sizes_at, "rising shares between 0 and 1, one less than train.sizes")
        require(0 <= self.ema < 1, "train.ema", self.ema, "from 0 to below 1")
        require(self.keep >= 2, "train.keep", self.keep, "at least 2, lest one that is damaged be the only one")
        require(self.log_every >= 1, "train.log_every", self.log_every, "at least 1")
        require(self.nonfinite_limit >= 0, "train.nonfinite_limit", self.nonfinite_limit, "at least 0")
        for field in ("length", "evaluate_every", "checkpoint_every"):
            if (value := getattr(self, field)) is None:
                continue
            count, _ = parse_duration(f"train.{field}", value)
            require(count > 0, f"train.{field}", value, "longer than nothing")


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
        require(self.devices is None or self.devices >= 1, "parallel.devices", self.devices, "at least 1")
        require(
            not self.shard_optimizer or self.mode == "jit", "parallel.shard_optimizer", True, "off unless mode is jit"
        )
        given = (self.coordinator is not None, self.processes is not None, self.process_id is not None)
        require(
            len(set(given)) == 1,
            "parallel.coordinator",
            self.coordinator,
            "given together with parallel.processes and parallel.process_id",
        )
        if self.coordinator is not None:
            require(
                re.fullmatch(r"[^:]+:\d+", self.coordinator) is not None,
                "parallel.coordinator",
                self.coordinator,
                "HOST:PORT",
            )
            count, own = self.processes or 0, self.process_id or 0
            require(count >= 1, "parallel.processes", count, "at least 1")
            require(0 <= own < count, "parallel.process_id", own, f"from 0 to {count - 1}")


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment: everything that decides its numbers."""

    model: nn.Module
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    wandb: WandbConfig = WandbConfig()
    seed: int = 0
    """Seed of initialisation, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")
        average = f"0: {self.optim.name} averages the weights itself"
        require(not (self.optim.schedule_free and self.train.ema), "train.ema", self.train.ema, average)
        augment, batch = self.data.augment, self.train.batch_size
        require(batch % augment.repeats == 0, "data.augment.repeats", augment.repeats, f"a divisor of {batch}")
        if augment.mix.on:
            pairs = batch // self.train.accumulate % 2 == 0 and batch // augment.repeats >= 2
            right = (
                "such that train.accumulate parts of it hold pairs of different images, which data.augment.mix mixes"
            )
            require(pairs, "train.batch_size", batch, right)


def duration_steps(field: str, duration: str, steps_per_epoch: float) -> int:
    """Returns a duration in whole steps, the nearest number to it."""
    count, unit = parse_duration(field, duration)
    return round(count if unit == "steps" else count * steps_per_epoch)


def model_fields(model: nn.Module) -> dict[str, Any]:
    """Returns a model's own fields by name."""
    return {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in FLAX_FIELDS}
