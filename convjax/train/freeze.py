"""What of a network stands still or learns more slowly, chosen by patterns of paths."""

import dataclasses
from typing import Any

import jax
import optax

from convjax.errors import UsageError
from convjax.train import patterns
from convjax.train.optim_config import OptimConfig
from convjax.train.patterns import matches, path_name
from convjax.train.values import parse_end, parse_rate


@dataclasses.dataclass(frozen=True)
class Freeze:
    """The part of a network that training leaves as it is, bit for bit.

    Attributes:
        patterns: of the paths of parameters and of batch statistics.
        statistics: whether batch norms whose statistics match are frozen as well: they normalise by the stored
            statistics in training, too.
    """

    patterns: tuple[str, ...] = ()
    statistics: bool = True

    def stopped(self, params: Any) -> Any:
        """Returns the parameters so that no gradient reaches the frozen ones: it is 0, and costs nothing."""
        if not self.patterns:
            return params
        frozen = patterns.select(params, self.patterns)
        return jax.tree.map(lambda leaf, stops: jax.lax.stop_gradient(leaf) if stops else leaf, params, frozen)

    def norms(self, batch_stats: Any) -> frozenset[str]:
        """Returns the paths of the modules all of whose statistics match."""
        if not self.statistics or not self.patterns:
            return frozenset()
        every = patterns.names(batch_stats)
        moving = {_module(name) for name in every if not matches(name, self.patterns)}
        return frozenset(map(_module, every)) - moving

    def hold(self, new: Any, old: Any) -> Any:
        """Returns `{"params": ..., "batch_stats": ...}`: what is frozen out of `old`, the rest out of `new`.

        Averages over devices or over time would change their last bits.
        """
        if not self.patterns:
            return new
        norms = self.norms(old["batch_stats"])
        return {
            "params": _where(lambda name: matches(name, self.patterns), old["params"], new["params"]),
            "batch_stats": _where(lambda name: _module(name) in norms, old["batch_stats"], new["batch_stats"]),
        }


def _module(name: str) -> str:
    return name.rpartition("/")[0]


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, a, b: a if condition(path_name(path)) else b, yes, no)


def factors(config: OptimConfig) -> list[tuple[str, float]]:
    """Returns pattern and factor of all that learns at another rate: by `optim.rates`, and layer by layer."""
    last = len(config.layers) - 1
    layers = [(pattern, config.layer_decay ** (last - i)) for i, pattern in enumerate(config.layers)]
    return [*(parse_rate("optim.rates", rate) for rate in config.rates), *layers]


def scaled(transformation: optax.GradientTransformation, config: OptimConfig) -> optax.GradientTransformation:
    """Returns an optimizer with factors on the updates of some parameters.

    A factor on the update, decay included, is one on the learning rate.
    """
    scales = [
        optax.masked(optax.scale(factor), lambda tree, only=pattern: patterns.select(tree, (only,)))
        for pattern, factor in factors(config)
        if factor != 1
    ]
    return optax.chain(transformation, *scales) if scales else transformation


def without_frozen(transformation: optax.GradientTransformation, config: OptimConfig) -> optax.GradientTransformation:
    """Returns an optimizer without updates of what is frozen.

    Frozen parameters have no optimizer state, do not decay and take no part in the norm by which gradients are clipped.
    """
    if not config.freeze:
        return transformation

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda still: "frozen" if still else "trained", patterns.select(params, config.freeze))

    return optax.partition({"trained": transformation, "frozen": optax.set_to_zero()}, labels)


def check(config: OptimConfig, params: Any) -> None:
    """Makes sure that each pattern of `optim.freeze` and `optim.rates` matches, and no parameter is meant twice.

    Raises:
        UsageError: a pattern matches nothing, a parameter has two rates, or is frozen and has a rate, or is in no
            layer or in two where there are layers, or all parameters are frozen.
    """
    names = patterns.names(params)
    rates = [parse_rate("optim.rates", rate)[0] for rate in config.rates]
    patterns.check("optim.freeze", config.freeze, names)
    patterns.check("optim.rates", rates, names)
    patterns.check("optim.layers", config.layers, names)
    ends = [parse_end("optim.ends", end)[0] for end in config.ends]
    patterns.check("optim.ends", ends, names)
    if config.name in ("muon", "muon_sgd"):
        patterns.check("optim.muon", config.muon, names)
    for name in names if config.layers else ():
        found = [pattern for pattern in config.layers if matches(name, (pattern,))]
        if len(found) != 1:
            which = " and ".join(map(repr, found)) or "none"
            raise UsageError(f"parameter {name} matches {which} of optim.layers: it must match exactly one of them")
    for name in names:
        meant = [f"{pattern!r} of optim.rates" for pattern in rates if matches(name, (pattern,))]
        if matches(name, config.freeze):
            meant = ["optim.freeze", *meant]
        if len(meant) > 1:
            raise UsageError(f"parameter {name} matches {' and '.join(meant)}: it must match at most one of them")
        ended = [f"{pattern!r} of optim.ends" for pattern in ends if matches(name, (pattern,))]
        if matches(name, config.freeze):
            ended = ["optim.freeze", *ended]
        if len(ended) > 1:
            raise UsageError(f"parameter {name} matches {' and '.join(ended)}: it must match at most one of them")
    if all(matches(name, config.freeze) for name in names):
        raise UsageError(f"optim.freeze is {config.freeze}: it leaves no parameter to train")


def describe(config: OptimConfig, params: Any, batch_stats: Any) -> list[str]:
    """Returns lines that say how much of a network is frozen, and what learns at another rate."""
    flat = {path_name(path): leaf.size for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    lines = []
    if config.freeze:
        frozen = sum(size for name, size in flat.items() if matches(name, config.freeze))
        norms = Freeze(config.freeze, config.freeze_statistics).norms(batch_stats)
        every = {_module(name) for name in patterns.names(batch_stats)}
        lines.append(
            f"frozen: {frozen:,} of {sum(flat.values()):,} parameters, "
            f"{len(norms)} of {len(every)} batch norms on stored statistics"
        )
    for pattern, factor in factors(config):
        slower = sum(size for name, size in flat.items() if matches(name, (pattern,)))
        lines.append(f"learning rate times {factor:g}: {slower:,} parameters ({pattern})")
    for end in config.ends:
        pattern, duration = parse_end("optim.ends", end)
        ended = sum(size for name, size in flat.items() if matches(name, (pattern,)))
        lines.append(f"learning ends after {duration}: {ended:,} parameters ({pattern})")
    return lines
