"""Draws the figures of docs/course with convjax's own operations: `make figures`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.datasets import load_sample_image

from convjax import ops
from convjax.explore.operations import KERNELS, Convolution, Normalisation, pixels
from convjax.models import CifarResNet

FOLDER = Path(__file__).parent / "course"
ORANGE, BLUE, INK = "#d9743c", "#3c74b8", "#1d2126"
SIGNED = LinearSegmentedColormap.from_list("signed", ["#21529c", "#78a9d6", "#f7f7f7", "#eea06b", "#b23c16"])


def photograph(name: str, side: int) -> Image.Image:
    """A photograph that scikit-learn ships, its central square, at `side` pixels."""
    image = Image.fromarray(load_sample_image(f"{name}.jpg"))
    left = (image.width - image.height) // 2
    return image.crop((left, 0, left + image.height, image.height)).resize((side, side), Image.Resampling.BOX)


def panels(count: int, size: float = 2.1) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(size * count, size + 0.35), layout="constrained")
    for each in axes:
        each.set_xticks([])
        each.set_yticks([])
    return figure, list(axes)


def show(axes: Axes, values: Any, title: str, signed: bool = False) -> None:
    """Shows `[H, W]` in grey from 0 to 1, or around zero in two colours."""
    limit = float(np.abs(values).max())
    limits: dict[str, Any] = {"vmin": -limit, "vmax": limit, "cmap": SIGNED} if signed else {"vmin": 0, "vmax": 1}
    axes.imshow(values, **{"cmap": "gray", **limits})
    axes.set_title(title)


def images() -> Figure:
    flower = photograph("flower", 48)
    figure, axes = panels(5)
    values = np.asarray(flower)
    axes[0].imshow(values)
    axes[0].set_title("48 x 48 x 3")
    for i, name in enumerate(("red", "green", "blue")):
        show(axes[i + 1], pixels(flower, "all", 64)[..., i], f"[..., {i}]: {name}")
        axes[i + 1].add_patch(Rectangle((13.5, 19.5), 5, 5, fill=False, edgecolor=ORANGE, linewidth=1.5))
    patch = values[20:25, 14:19, 2]
    show(axes[4], patch / 255, "[20:25, 14:19, 2]")
    for (row, column), value in np.ndenumerate(patch):
        axes[4].text(column, row, str(value), ha="center", va="center", fontsize=7, color="k" if value > 128 else "w")
    return figure


def convolution() -> Figure:
    china = photograph("china", 64)
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("Gaussian blur", "SAME", {}),
        ("Sobel x", "VALID", {}),
        ("Sobel y", "VALID", {}),
        ("Sobel x", "VALID, stride 2, dilation 2", {"stride": 2, "dilation": 2}),
    ]
    figure, axes = panels(len(cases) + 1)
    show(axes[0], pixels(china, "grey", 64)[..., 0], "input\n64 x 64")
    for each, (name, choices, given) in zip(axes[1:], cases, strict=True):
        padding: Any = choices.split(",")[0]
        view = Convolution([list(row) for row in KERNELS[name]], padding=padding, **given)(china)
        size = " x ".join(map(str, view.output.shape[:2]))
        show(each, view.output[..., 0], f"{name}, {choices}\n{size}", signed=name != "Gaussian blur")
        each.title.set_fontsize(7.5)
    return figure


def receptive_field() -> Figure:
    cases: list[tuple[str, list[dict[str, int]]]] = [
        ("3 x 3", [{}]),
        ("3 x 3 twice", [{}, {}]),
        ("stride 2, then 3 x 3", [{"stride": 2}, {}]),
        ("3 x 3, then dilation 3", [{}, {"dilation": 3}]),
    ]
    figure, axes = panels(len(cases))
    for each, (title, layers) in zip(axes, cases, strict=True):

        def centre(x: jax.Array, layers: Sequence[dict[str, Any]] = layers) -> jax.Array:
            for layer in layers:
                x = ops.conv2d(x, jnp.ones((3, 3, 1, 1)), **layer)
            return x[0, x.shape[1] // 2, x.shape[2] // 2, 0]

        gradient = jax.grad(centre)(jnp.zeros((1, 17, 17, 1)))[0, ..., 0]
        side = int((np.asarray(gradient) != 0).any(axis=1).sum())
        each.imshow(gradient, cmap="Blues")
        each.set_title(f"{title}\n{side} x {side}")
    return figure


def pooling() -> Figure:
    x = pixels(photograph("china", 32), "grey", 32)
    pools: tuple[tuple[str, Callable[[jax.Array], jax.Array]], ...] = (
        ("maximum", lambda x: ops.max_pool(x, 4)),
        ("average", lambda x: ops.avg_pool(x, 4)),
    )
    figure, axes = panels(5)
    show(axes[0], x[..., 0], "input, 32 x 32")
    for i, (name, pool) in enumerate(pools):
        y, backward = jax.vjp(pool, jnp.asarray(x)[None])
        show(axes[1 + i], y[0, ..., 0], f"{name} of 4 x 4")
        axes[3 + i].imshow(backward(jnp.ones_like(y))[0][0, ..., 0], cmap="Blues", vmin=0, vmax=1)
        axes[3 + i].set_title(f"gradient of the {name}")
    return figure


def batch_norm() -> Figure:
    china = photograph("china", 64)
    x = 4 * Convolution([list(row) for row in KERNELS["Emboss"]], padding="VALID")(china).output
    cases = [
        ("activations", None),
        ("in training", Normalisation()),
        ("in evaluation after 3 steps", Normalisation(train=False, steps=3)),
        ("after 50 steps", Normalisation(train=False, steps=50)),
    ]
    figure, axes = plt.subplots(1, len(cases), figsize=(10.5, 2.3), sharex=True, sharey=True, layout="constrained")
    for each, (title, norm) in zip(axes, cases, strict=True):
        values = x if norm is None else norm(x)[0]
        each.hist(values.ravel(), bins=np.linspace(-5, 10, 61), color=BLUE)
        each.axvline(float(values.mean()), color=ORANGE)
        each.set_title(f"{title}\nmean {values.mean():.2f}, deviation {values.std():.2f}")
        each.set_yticks([])
        each.spines[["left", "top", "right"]].set_visible(False)
    return figure


def connections() -> Figure:
    """The gradient's norm at each block of networks that have not been trained."""
    images = jax.random.normal(jax.random.key(1), (32, 16, 16, 3))
    labels = jax.nn.one_hot(jnp.arange(32) % 10, 10)
    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    for shortcut, name, colour in (("none", "plain", ORANGE), ("A", "residual", BLUE)):
        model = CifarResNet(depth=56, width=8, shortcut=shortcut)  # type: ignore[arg-type]
        variables = jax.jit(lambda x, model=model: model.init(jax.random.key(0), x, train=False))(images)

        def loss(params: Any, model: CifarResNet = model, variables: Any = variables) -> jax.Array:
            given = {**variables, "params": params}
            logits: Any = model.apply(given, images, train=True, mutable=["batch_stats"])[0]
            return -(labels * jax.nn.log_softmax(logits)).sum(-1).mean()

        gradient = jax.jit(jax.grad(loss))(variables["params"])
        blocks = [f"stage{stage}_block{i}" for stage in (1, 2, 3) for i in range(1, 10)]
        norms = [float(jnp.linalg.norm(gradient[block]["conv2"]["kernel"])) for block in blocks]
        axes.semilogy(range(1, 28), norms, "o-", color=colour, markersize=3, label=name)
    axes.set_xlabel("block")
    axes.set_title("norm of the gradient, 56 layers, before training")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    draw.__name__: draw for draw in (images, convolution, receptive_field, pooling, batch_norm, connections)
}
"""What draws each figure, by the name of its file."""


def main() -> None:
    mpl.use("agg")
    mpl.rcParams.update({"font.size": 8, "axes.titlesize": 8.5, "text.color": INK, "savefig.dpi": 130})
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw()
        figure.savefig(FOLDER / f"{name}.png", metadata={"Software": None})
        plt.close(figure)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
