"""Draws what `convjax compare` does not: the figures of docs/findings that are no sweep's metric.

python docs/findings/draw.py sizes
python docs/findings/draw.py correlation
python docs/findings/draw.py gradients
python docs/findings/draw.py shifts sweeps/pooling
"""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convjax.data import order, sources
from convjax.data.images import permuted
from convjax.inspect import count, health, neighbours, shift
from convjax.models import MLP, ConvNet
from convjax.sweep.plots import COLOURS
from convjax.sweep.record import Sweep
from convjax.train import evaluate, experiment
from convjax.train.evaluate import Trained
from convjax.train.run import Run

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parents[1] / "experiments"
MARKS = ("o", "s", "^", "D")
SIDES = (8, 16, 32, 64, 128, 256, 512, 1000)
EXAMPLES = 2000
"""Of the train split, to find correlations by; of the test split, to be shifted."""
MOST_SHIFTED = 4


def panels(count: int, width: float = 4.0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, 3.2), layout="constrained")
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.3)
    return figure, axes


def save(figure: Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", dpi=110)
    print(HERE / f"{name}.png")


def place(name: str) -> list[tuple[int, str]]:
    """Returns what sorts layers by their place: the stem, then blocks and layers by number, each part by its name."""
    return [(int(number or -1), word) for word, number in re.findall(r"(stem|[a-z]+)(\d*)", name)]


def sizes() -> None:
    """Parameters of a perceptron and of a ConvNet as their images grow, to 1000 x 1000 x 3."""
    networks = {
        "MLP, 64 hidden units": MLP(hidden=(64,)),
        "ConvNet": ConvNet(stage_widths=(46, 93, 185), stem_stride=2),
    }
    figure, (axes,) = panels(1, 5.0)
    for (name, network), colour, mark in zip(networks.items(), COLOURS, MARKS, strict=False):
        parameters = [count.parameters(network, (side, side, 3)) for side in SIDES]
        axes.loglog(SIDES, parameters, color=colour, marker=mark, label=name)
        print(name, dict(zip(SIDES, parameters, strict=True)))
    axes.set_xlabel("side of the image (pixels), 3 channels")
    axes.set_ylabel("parameters")
    axes.legend()
    save(figure, "pixels_sizes")


def correlation() -> None:
    """Correlation of two pixels by their distance, on real images, as they are and permuted."""
    figure, (axes,) = panels(1, 5.0)
    for name, colour, mark in zip(("fashion_mnist", "cifar10_jpeg"), COLOURS, MARKS, strict=False):
        train = sources.load(name).train
        images = np.asarray(train.images)[order.part(name, len(train), EXAMPLES)]
        distances = range(min(images.shape[1:3]) // 2 + 1)
        for pixels, style in (("in order", "-"), ("permuted", "--")):
            shown = images if pixels == "in order" else permuted(images, 0)
            found = neighbours.correlation(shown, distances)
            axes.plot(distances, found, style, color=colour, marker=mark, markersize=4, label=f"{name}, {pixels}")
            print(name, pixels, [round(value, 3) for value in found])
    axes.set_xlabel("distance of two pixels in a row or column")
    axes.set_ylabel("correlation over images")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.legend()
    save(figure, "neighbours_correlation")


def gradients() -> None:
    """Norm of each convolution's gradient before the first step, by its place in the network."""
    file = experiment.read(EXPERIMENTS / "findings_depth.py")
    data = evaluate.load_data(file.config)
    figure, axes = panels(3)
    for each, kind in zip(axes, ("plain", "residual", "dense"), strict=True):
        for depth, colour in zip((8, 20, 32, 56), COLOURS, strict=False):
            model = file.axes["model"][f"{kind}_{depth}"]
            found = health.gradients_at_start(dataclasses.replace(file.config, model=model), data)
            norms = [found[name] for name in sorted(found, key=place) if "conv" in name or name == "stem"]
            print(kind, depth, f"first {norms[0]:.3g}, last {norms[-1]:.3g}, least {min(norms):.3g}")
            each.semilogy(np.linspace(0, 1, len(norms)), norms, color=colour, label=f"{depth} layers")
        each.set_title(kind)
        each.set_xlabel("depth: from first to last convolution")
    axes[0].set_ylabel("norm of the gradient at the start")
    limits = [limit for each in axes for limit in each.get_ylim()]
    for each in axes:
        each.set_ylim(min(limits), max(limits))
    axes[-1].legend()
    save(figure, "depth_gradients")


def shifts(path: Path) -> None:
    """Accuracy and agreement of the runs of a sweep as test images are shifted, means over seeds."""
    found: dict[str, list[list[shift.Shifted]]] = {}
    data = None
    for arm in Sweep.read(path).runs:
        network = Trained.read(Run(arm.directory), "best")
        data = data or evaluate.load_same_data(network.config, network.info, Run(arm.directory))
        test = data.splits["test"].take(np.arange(EXAMPLES))
        found.setdefault(arm.settings["model.pool"], []).append(shift.curve(network, test, MOST_SHIFTED))
    figure, axes = panels(2)
    for (pool, curves), colour, mark in zip(found.items(), COLOURS, MARKS, strict=False):
        both = 100 * np.array([[(row.accuracy, row.agreement) for row in curve] for curve in curves])
        means, spreads = both.mean(axis=0), both.std(axis=0, ddof=1)
        for i, each in enumerate(axes):
            each.errorbar(
                range(MOST_SHIFTED + 1), means[:, i], spreads[:, i], color=colour, marker=mark, capsize=3, label=pool
            )
        print(f"| {pool} | {' | '.join(f'{accuracy:.1f} ({same:.1f})' for accuracy, same in means)} |")
    for each, title in zip(axes, ("right answers", "same answers as to the image unshifted"), strict=True):
        each.set_title(title, fontsize=10)
        each.set_xlabel("shift of the test images (pixels)")
        each.set_xticks(range(MOST_SHIFTED + 1))
    axes[0].set_ylabel("% (mean and std. dev. over seeds)")
    axes[0].legend()
    save(figure, "pooling_shifts")


FIGURES = {"sizes": sizes, "correlation": correlation, "gradients": gradients}

if __name__ == "__main__":
    if sys.argv[1] == "shifts":
        shifts(Path(sys.argv[2]))
    else:
        FIGURES[sys.argv[1]]()
