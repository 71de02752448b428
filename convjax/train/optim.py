"""Learning-rate schedule, decay mask and the optax chain."""

from collections.abc import Iterable
from typing import Any

import jax
import optax

from convjax.errors import UsageError
from convjax.train.config import OptimConfig
from convjax.train.freeze import restrained
from convjax.train.patterns import matches, path_name


def schedule(config: OptimConfig, *, steps: int, warmup: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    With a warm-up of w steps, step t < w has `lr * (t + 1) / (w + 1)`. After it, over the remaining n steps:
    `cosine` is `lr * (1 + cos(pi * t / n)) / 2` (Loshchilov and Hutter 2016, arXiv:1608.03983, without
    restarts); `step` multiplies by `drop_factor` at each share of the whole length in `drops`.

    Raises:
        UsageError: the warm-up is not shorter than the run.
    """
    if warmup >= steps:
        raise UsageError(f"optim.warmup is {config.warmup}, {warmup} steps: the whole run has {steps}")
    after: optax.Schedule
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.lr, steps - warmup)
    elif config.schedule == "step":
        drops: dict[int, float] = {}
        for share in config.drops:  # in a short run, or before the end of the warm-up, several may fall together
            at = max(round(share * steps) - warmup, 0)
            drops[at] = drops.get(at, 1.0) * config.drop_factor
        after = optax.piecewise_constant_schedule(config.lr, drops)
    else:
        after = optax.constant_schedule(config.lr)
    if not warmup:
        return after
    rise = optax.linear_schedule(config.lr / (warmup + 1), config.lr, warmup)
    return optax.join_schedules([rise, after], [warmup])


def decay_mask(params: Any, decay: Iterable[str], no_decay: Iterable[str]) -> Any:
    """Returns which parameters decay: the tree of `params` with a bool for each.

    Raises:
        UsageError: a parameter matches neither or both lists of patterns.
    """

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = path_name(path)
        yes, no = matches(name, decay), matches(name, no_decay)
        if yes == no:
            which = "both" if yes else "neither"
            raise UsageError(f"parameter {name} matches {which} of optim.decay and optim.no_decay: it must match one")
        return yes

    return jax.tree_util.tree_map_with_path(decays, params)


def optimizer(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns clipping, then SGD with momentum or AdamW, then what `freeze` and `rates` ask for, as one transformation.

    See `convjax.train.freeze.restrained`.
    """
    return restrained(_unrestrained(config, rate), config.freeze, config.rates)


def _unrestrained(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns clipping, then SGD with momentum or AdamW, of all parameters alike."""

    def mask(params: Any) -> Any:
        return decay_mask(params, config.decay, config.no_decay)

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.name == "adamw":
        return optax.chain(
            clip,
            optax.adamw(rate, b1=config.momentum, b2=config.beta2, weight_decay=config.weight_decay, mask=mask),
        )
    return optax.chain(
        clip,
        optax.add_decayed_weights(config.weight_decay, mask=mask),
        optax.sgd(rate, momentum=config.momentum, nesterov=config.nesterov),
    )
