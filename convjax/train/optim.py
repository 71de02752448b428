"""Learning-rate schedule, decay mask and the optax chain."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from convjax.errors import UsageError
from convjax.train.freeze import factors, scaled, without_frozen
from convjax.train.muon import kept_norms, matrices, muon_sgd
from convjax.train.optim_config import EPSILONS, OptimConfig
from convjax.train.patterns import matches, path_name
from convjax.train.values import parse_end


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


def optimizer(
    config: OptimConfig, rate: optax.Schedule, ends: Sequence[optax.Schedule] = ()
) -> optax.GradientTransformation:
    """Returns what turns gradients into updates: clipping, optimizer, factors on rates, averaging; not of frozen ones.

    Sharpness-aware minimisation is not part of it, since it changes which gradients are taken.

    Args:
        config: what is configured.
        rate: the learning rate.
        ends: that of the parameters in each of `config.ends`.
    """
    found = scaled(optax.chain(_clip(config), *_ending(config, rate, ends)), config)
    if config.name == "muon_sgd":
        found = optax.chain(found, kept_norms(config))
    if config.schedule_free:
        found = optax.contrib.schedule_free(found, rate, b1=config.momentum)
    if config.lookahead:
        found = lookahead(found, config.lookahead, config.lookahead_step)
    return without_frozen(found, config)


def _clip(config: OptimConfig) -> optax.GradientTransformation:
    if config.clip_adaptive is not None:
        return optax.adaptive_grad_clip(config.clip_adaptive)
    return optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()


def _ending(
    config: OptimConfig, rate: optax.Schedule, ends: Sequence[optax.Schedule]
) -> tuple[optax.GradientTransformation, ...]:
    """Returns the optimizer with the rates of `config.ends` for what these match, as parts of a chain."""
    if not config.ends:
        return _updates(config, rate)
    shorter = [parse_end("optim.ends", end)[0] for end in config.ends]
    rates = dict(zip(shorter, ends, strict=True)) | {"": rate}

    def label(path: tuple[Any, ...], _: Any) -> str:
        return next((pattern for pattern in shorter if matches(path_name(path), (pattern,))), "")

    parts = {pattern: optax.chain(*_updates(config, own)) for pattern, own in rates.items()}
    return (optax.partition(parts, lambda params: jax.tree_util.tree_map_with_path(label, params)),)


def _decay_apart(config: OptimConfig) -> optax.GradientTransformation:
    """Returns what adds so much less decay as the parameter's update is multiplied by afterwards."""

    def update(updates: Any, params: Any) -> Any:
        def one(path: tuple[Any, ...], gradient: jax.Array, weights: jax.Array, decays: bool) -> jax.Array:
            if not decays:
                return gradient
            factor = math.prod(factor for pattern, factor in factors(config) if matches(path_name(path), (pattern,)))
            return gradient + config.weight_decay / factor * weights

        mask = decay_mask(params, config.decay, config.no_decay)
        return jax.tree_util.tree_map_with_path(one, updates, params, mask)

    return optax.stateless(update)


def _updates(config: OptimConfig, rate: optax.Schedule) -> tuple[optax.GradientTransformation, ...]:
    """Returns the optimizer of a name, of all parameters alike, as parts of a chain."""

    def mask(params: Any) -> Any:
        return decay_mask(params, config.decay, config.no_decay)

    b1, b2, decay, nesterov = config.momentum, config.beta2, config.weight_decay, config.nesterov
    epsilon = EPSILONS.get(config.name, 0.0) if config.epsilon is None else config.epsilon
    added = optax.add_decayed_weights(decay, mask=mask) if config.decay_by_rates else _decay_apart(config)
    match config.name:
        case "sgd":
            return added, optax.sgd(rate, momentum=b1, nesterov=nesterov)
        case "rmsprop":
            # As TensorFlow has it: a first mean square of 1, epsilon below the root, the rate inside of the momentum.
            return added, optax.rmsprop(rate, b2, epsilon, initial_scale=1.0, eps_in_sqrt=True, momentum=b1)
        case "adam":
            return added, optax.adam(rate, b1, b2, epsilon)
        case "adamw":
            return (optax.adamw(rate, b1, b2, epsilon, weight_decay=decay, mask=mask),)
        case "lamb":
            return (optax.lamb(rate, b1, b2, epsilon, weight_decay=decay, mask=mask),)
        case "lars":
            return (optax.lars(rate, decay, mask, config.trust, 0.0, mask, b1, nesterov),)
        case "lion":
            return (optax.lion(rate, b1, b2, weight_decay=decay, mask=mask),)
        case "muon":
            # At a rate of -1, so that all parameters' decay and rate can follow in one place.
            direction = optax.contrib.muon(
                -1.0,
                beta=b1,
                eps=epsilon,
                nesterov=nesterov,
                adam_b2=b2,
                ns_steps=config.muon_steps,
                muon_weight_dimension_numbers=lambda params: matrices(params, config.muon),
            )
            return direction, added, optax.scale_by_learning_rate(rate)
        case "muon_sgd":
            return (muon_sgd(config, rate, epsilon, added),)
        case "schedule_free_sgd":
            return added, optax.sgd(rate)
        case "schedule_free_adamw":
            return (optax.adamw(rate, 0.0, b2, epsilon, weight_decay=decay, mask=mask),)


class LookaheadState(NamedTuple):
    """Attributes:
    slow: the slow weights.
    fast: state of optax's look-ahead, with that of the optimizer.
    """

    slow: Any
    fast: Any


def lookahead(fast: optax.GradientTransformation, period: int, step: float) -> optax.GradientTransformation:
    """Returns optax's look-ahead with the slow weights in its state, so that it takes parameters like any optimizer.

    Zhang et al. 2019, arXiv:1907.08610. What is evaluated are the fast weights.
    """
    both = optax.lookahead(fast, period, step)

    def init(params: Any) -> LookaheadState:
        return LookaheadState(jax.tree.map(jnp.copy, params), both.init(optax.LookaheadParams(params, params)))

    def update(grads: Any, state: LookaheadState, params: Any = None) -> tuple[Any, LookaheadState]:
        updates, inner = both.update(grads, state.fast, optax.LookaheadParams(params, state.slow))
        return updates.fast, LookaheadState(optax.apply_updates(state.slow, updates.slow), inner)

    return optax.GradientTransformation(init, update)
