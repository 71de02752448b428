"""What of a network stands still or learns more slowly, chosen by patterns of paths."""

import dataclasses
from typing import Any

import jax
import optax

from convjax.errors import UsageError
from convjax.train import patterns
from convjax.train.config import OptimConfig, parse_rate
from convjax.train.patterns import matches, path_name


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


def restrained(
    transformation: optax.GradientTransformation, freeze: tuple[str, ...], rates: tuple[str, ...]
) -> optax.GradientTransformation:
    """Returns an optimizer with a factor on some parameters' updates, and without updates of frozen ones.

    Frozen parameters have no optimizer state, do not decay and take no part in the norm by which gradients are clipped.
    A factor on the update, decay included, is one on the learning rate.
    """
    parts = []
    if freeze:
        kinds = {"trained": transformation, "frozen": optax.set_to_zero()}

        def labels(params: Any) -> Any:
            return jax.tree.map(lambda still: "frozen" if still else "trained", patterns.select(params, freeze))

        parts.append(optax.partition(kinds, labels))
    else:
        parts.append(transformation)
    for rate in rates:
        pattern, factor = parse_rate("optim.rates", rate)
        parts.append(optax.masked(optax.scale(factor), lambda tree, only=pattern: patterns.select(tree, (only,))))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


def check(config: OptimConfig, params: Any) -> None:
    """Makes sure that each pattern of `optim.freeze` and `optim.rates` matches, and no parameter is meant twice.

    Raises:
        UsageError: a pattern matches nothing, a parameter has two rates, or is frozen and has a rate, or all
            parameters are frozen.
    """
    names = patterns.names(params)
    rates = [parse_rate("optim.rates", rate)[0] for rate in config.rates]
    patterns.check("optim.freeze", config.freeze, names)
    patterns.check("optim.rates", rates, names)
    for name in names:
        meant = [f"{pattern!r} of optim.rates" for pattern in rates if matches(name, (pattern,))]
        if matches(name, config.freeze):
            meant = ["optim.freeze", *meant]
        if len(meant) > 1:
            raise UsageError(f"parameter {name} matches {' and '.join(meant)}: it must match at most one of them")
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
    for rate in config.rates:
        pattern, factor = parse_rate("optim.rates", rate)
        slower = sum(size for name, size in flat.items() if matches(name, (pattern,)))
        lines.append(f"learning rate times {factor:g}: {slower:,} parameters ({pattern})")
    return lines
