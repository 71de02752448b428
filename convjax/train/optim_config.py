"""What is configured of the optimizer."""

import dataclasses
from typing import Literal, TypeAlias

from convjax.errors import check_choices, require
from convjax.train.values import parse_duration, parse_end, parse_rate, rising

OptimizerName: TypeAlias = Literal[
    "sgd",
    "rmsprop",
    "adam",
    "adamw",
    "lamb",
    "lars",
    "lion",
    "muon",
    "muon_sgd",
    "schedule_free_sgd",
    "schedule_free_adamw",
]
EPSILONS: dict[OptimizerName, float] = {
    "rmsprop": 1e-3,
    "adam": 1e-8,
    "adamw": 1e-8,
    "lamb": 1e-6,
    "muon": 1e-8,
    "muon_sgd": 1e-7,
    "schedule_free_adamw": 1e-8,
}
"""The optimizers that have an epsilon, and the one that they take by themselves."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning-rate schedule, weight decay, clipping. See docs/optimisation.md."""

    name: OptimizerName = "sgd"
    """sgd, rmsprop, adam, lars, muon_sgd, schedule_free_sgd add decay to the gradient, others apart
    (arXiv:1711.05101)."""
    lr: float = 0.1
    """Highest learning rate."""
    momentum: float = 0.9
    """Decay of the momentum: beta 1 of adam, adamw, lamb and lion; beta of schedule-free averaging."""
    nesterov: bool = True
    """Whether the momentum of sgd, lars, muon and muon_sgd is Nesterov's."""
    beta2: float = 0.999
    """Decay of the second moment; of lion's slow momentum."""
    epsilon: float | None = None
    """What second moments are kept above; None takes 1e-3 for rmsprop, 1e-6 for lamb, 1e-7 for muon_sgd, else 1e-8."""
    trust: float = 0.001
    """Trust coefficient of lars."""
    muon: tuple[str, ...] = ("*/conv*/kernel",)
    """Patterns of the parameters that muon orthogonalises; others take updates of adamw, or of sgd with muon_sgd."""
    muon_steps: int = 5
    """Newton-Schulz iterations of muon and muon_sgd."""
    sgd_momentum: float = 0.85
    """Decay of the momentum of what muon_sgd leaves to sgd."""
    weight_decay: float = 5e-4
    """Coefficient of the decay."""
    decay: tuple[str, ...] = ("*/kernel",)
    """Patterns of the parameters that decay, as stage1_block1/conv1/conv/kernel or */kernel."""
    no_decay: tuple[str, ...] = ("*/bias", "*/scale")
    """Patterns of those that do not. Each parameter must match in exactly one of both lists."""
    schedule: Literal["cosine", "step", "constant", "linear", "polynomial", "onecycle"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    warmup: str = "0 steps"
    """Length of the linear warm-up, as "500 steps" or "5 epochs"."""
    final: float = 0.0
    """What cosine, linear and polynomial end at, as a share of lr."""
    cycles: int = 1
    """Equal parts of schedule cosine, at the beginning of each of which the rate is lr again."""
    power: float = 2.0
    """Exponent of schedule polynomial."""
    drops: tuple[float, ...] = (0.5, 0.75)
    """Where schedule step lowers the rate, as shares of the run's length."""
    drop_factor: float = 0.1
    """What schedule step multiplies the rate by at each drop."""
    rise: float = 0.3
    """Share of the run in which schedule onecycle rises to lr."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; None does not clip."""
    clip_adaptive: float | None = None
    """Largest norm of a unit's gradient as a share of its weights' norm (arXiv:2102.06171); None does not clip."""
    sharpness: float = 0.0
    """Radius rho of sharpness-aware minimisation (arXiv:2010.01412), which takes twice the time; 0 switches it off."""
    lookahead: int = 0
    """Updates after which slow weights take a step towards the fast ones (arXiv:1907.08610); 0 switches it off."""
    lookahead_step: float = 0.5
    """Length of that step, as a share of the way."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameters that stay as they are, as stem/* or stage1*/*: not updated, not decayed."""
    freeze_statistics: bool = True
    """Whether batch norms below such a pattern normalise by their stored statistics, and keep these."""
    rates: tuple[str, ...] = ()
    """Factors on the learning rate of some parameters, as stage4*/*=0.1; each may match in one pattern."""
    decay_by_rates: bool = True
    """Whether the factors of rates and layers apply to the decay too; off is for sgd, muon and muon_sgd."""
    ends: tuple[str, ...] = ()
    """Parameters whose schedule is that of a shorter run, after which they stay as they are, as stem/*=3 epochs."""
    layers: tuple[str, ...] = ()
    """Patterns of layers from first to last, for layer_decay; each parameter must match in exactly one."""
    layer_decay: float = 1.0
    """Factor on the learning rate of each of `layers` against the next one; the last has the full rate."""

    def __post_init__(self) -> None:
        check_choices(self, "optim")
        for name in ("momentum", "beta2", "sgd_momentum"):
            require(0 <= getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "from 0 to below 1")
        for name in ("lr", "trust", "power"):
            require(getattr(self, name) > 0, f"optim.{name}", getattr(self, name), "above 0")
        for name in ("weight_decay", "sharpness", "lookahead"):
            require(getattr(self, name) >= 0, f"optim.{name}", getattr(self, name), "at least 0")
        for name in ("drop_factor", "lookahead_step", "layer_decay"):
            require(0 < getattr(self, name) <= 1, f"optim.{name}", getattr(self, name), "above 0 and at most 1")
        for name in ("clip_norm", "clip_adaptive"):
            value = getattr(self, name)
            require(value is None or value > 0, f"optim.{name}", value, "above 0 or None")
        require(rising(self.drops), "optim.drops", self.drops, "rising shares between 0 and 1")
        require(0 <= self.final <= 1, "optim.final", self.final, "from 0 to 1")
        require(self.cycles >= 1, "optim.cycles", self.cycles, "at least 1")
        require(self.muon_steps >= 1, "optim.muon_steps", self.muon_steps, "at least 1")
        require(0 < self.rise < 1, "optim.rise", self.rise, "above 0 and below 1")
        for rate in self.rates:
            parse_rate("optim.rates", rate)
        for end in self.ends:
            parse_end("optim.ends", end)
        self._check_together()

    def _check_together(self) -> None:
        """Makes sure that no two fields contradict each other."""
        warmup, _ = parse_duration("optim.warmup", self.warmup)
        one = "onecycle"
        require(self.schedule != one or not warmup, "optim.warmup", self.warmup, f"0 steps: {one} rises by itself")
        only = f"None: {self.name} has none"
        require(self.epsilon is None or self.name in EPSILONS, "optim.epsilon", self.epsilon, only)
        require(self.epsilon is None or self.epsilon > 0, "optim.epsilon", self.epsilon, "above 0 or None")
        both = self.clip_norm is not None and self.clip_adaptive is not None
        require(not both, "optim.clip_adaptive", self.clip_adaptive, "None where optim.clip_norm is given")
        decays = self.layer_decay < 1
        right = "below 1 where optim.layers are given, 1 where none are"
        require(decays == bool(self.layers), "optim.layer_decay", self.layer_decay, right)
        cosine = self.schedule == "cosine"
        require(cosine or self.cycles == 1, "optim.cycles", self.cycles, f"1: schedule {self.schedule} has no cycles")
        linear = self.decay_by_rates or self.name in ("sgd", "muon", "muon_sgd")
        require(linear, "optim.decay_by_rates", self.decay_by_rates, f"on for {self.name}")
        if self.schedule_free:
            require(not self.ends, "optim.ends", self.ends, f"empty: {self.name} has no schedule")
            right = f"constant: {self.name} averages instead of lowering the rate; optim.warmup may be given"
            require(self.schedule == "constant", "optim.schedule", self.schedule, right)
            require(self.momentum > 0, "optim.momentum", self.momentum, f"above 0 for {self.name}")
            require(not self.lookahead, "optim.lookahead", self.lookahead, f"0: {self.name} averages by itself")

    @property
    def schedule_free(self) -> bool:
        """Whether the optimizer averages its weights, so that no schedule is needed."""
        return self.name.startswith("schedule_free")
