"""The learning rate as a function of the step."""

import itertools

import jax.numpy as jnp
import optax

from convjax.errors import UsageError
from convjax.train.optim_config import OptimConfig


def schedule(config: OptimConfig, *, steps: int, warmup: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    With a warm-up of w steps, step t < w has `lr * (t + 1) / (w + 1)`. After it, over the remaining n steps, with f for
    `final`:

        cosine      lr * (f + (1 - f) * (1 + cos(pi * t / n)) / 2), of each of `cycles` equal parts
                    (Loshchilov and Hutter 2016, arXiv:1608.03983)
        linear      lr * (1 - (1 - f) * t / n)
        polynomial  lr * (f + (1 - f) * (1 - t / n)**power)
        step        lr, times `drop_factor` at each share of the whole length in `drops`
        constant    lr
        onecycle    from lr / 25 up to lr and down to lr / 250,000, both by a cosine (Smith and Topin 2017,
                    arXiv:1708.07120; two phases, as optax and PyTorch have it)

    Raises:
        UsageError: the warm-up is not shorter than the run, or the run shorter than its cycles.
    """
    if warmup >= steps:
        raise UsageError(f"optim.warmup is {config.warmup}, {warmup} steps: the whole run has {steps}")
    after = _after(config, steps, warmup)
    if not warmup:
        return after
    rise = optax.linear_schedule(config.lr / (warmup + 1), config.lr, warmup)
    return optax.join_schedules([rise, after], [warmup])


def ending(config: OptimConfig, *, steps: int, warmup: int) -> optax.Schedule:
    """Returns the schedule of a run of so many steps, and 0 after its end.

    Raises:
        UsageError: the warm-up is not shorter.
    """
    if warmup >= steps:
        raise UsageError(f"optim.ends has an end after {steps} steps: optim.warmup alone has {warmup}")
    rate = schedule(config, steps=steps, warmup=warmup)
    return lambda count: jnp.where(count < steps, rate(count), 0.0)


def _after(config: OptimConfig, steps: int, warmup: int) -> optax.Schedule:
    """Returns what follows the warm-up."""
    left = steps - warmup
    match config.schedule:
        case "cosine":
            return _cosine(config, left)
        case "linear":
            return optax.linear_schedule(config.lr, config.lr * config.final, left)
        case "polynomial":
            return optax.polynomial_schedule(config.lr, config.lr * config.final, config.power, left)
        case "step":
            drops: dict[int, float] = {}
            for share in config.drops:  # in a short run, or before the end of the warm-up, several may fall together
                at = max(round(share * steps) - warmup, 0)
                drops[at] = drops.get(at, 1.0) * config.drop_factor
            return optax.piecewise_constant_schedule(config.lr, drops)
        case "constant":
            return optax.constant_schedule(config.lr)
        case "onecycle":
            return optax.cosine_onecycle_schedule(steps, config.lr, config.rise)


def _cosine(config: OptimConfig, steps: int) -> optax.Schedule:
    if steps < config.cycles:
        raise UsageError(f"optim.cycles is {config.cycles}: it must be at most {steps}, the steps after the warm-up")
    starts = [round(steps * i / config.cycles) for i in range(config.cycles + 1)]
    parts = [
        optax.cosine_decay_schedule(config.lr, end - start, config.final) for start, end in itertools.pairwise(starts)
    ]
    return optax.join_schedules(parts, starts[1:-1]) if len(parts) > 1 else parts[0]
