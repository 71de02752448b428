"""All pictures of a network: what `convjax inspect` draws."""

import dataclasses
import fnmatch
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convjax.data.sheets import tiles
from convjax.errors import UsageError, nearest
from convjax.inspect import attribution, cam, filters, pictures
from convjax.inspect.exciting import most_exciting
from convjax.inspect.features import features, main_parts
from convjax.inspect.optimise import optimised

Method: TypeAlias = Literal[
    "filters",
    "features",
    "gradient",
    "smoothgrad",
    "integrated",
    "occlusion",
    "gradcam",
    "gradcam++",
    "exciting",
    "optimised",
]
METHODS: tuple[Method, ...] = get_args(Method)
OF_IMAGES: tuple[Method, ...] = METHODS[1:8]
"""Those that look at given images."""
_SIDE = 160
"""Pixels that pictures of one image are enlarged to."""
_MOST_MAPS = 64


class Network(Protocol):
    """A trained network; see `convjax.train.weights.Weights`."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def variables(self) -> Mapping[str, Any]: ...
    @property
    def image(self) -> tuple[int, int, int]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def normalise(self) -> Callable[[jax.Array], jax.Array]: ...


@dataclasses.dataclass(frozen=True)
class Picture:
    """Attributes:
    name: of its file, without the ending.
    shows: what is to be seen, in words.
    image: the picture.
    """

    name: str
    shows: str
    image: Image.Image


def layers(network: Network, pattern: str | None = None) -> list[str]:
    """Returns the layers whose outputs are images `[N, h, w, c]`, by their names in `convjax.features`.

    Args:
        network: the network.
        pattern: of names, as in a shell, with a slash for each level below the first (`stage*_block1/conv2`); where a
            stage and its last block both fit, the stage stands for both. None takes all parts of the first level, of
            stages no single blocks.

    Raises:
        UsageError: there is none.
    """
    depth = 1 if pattern is None else pattern.count("/") + 1
    same: dict[str, str] = {}

    def outputs(variables: Any, images: jax.Array) -> Any:
        found = features(network.model, variables, images, depth=depth)
        same.update((block, stage) for block, stage in itertools.pairwise(found) if found[block] is found[stage])
        return found

    images = jax.ShapeDtypeStruct((1, *network.image), jnp.float32)
    shapes = jax.eval_shape(outputs, dict(network.variables), images)
    known = [name for name, output in shapes.items() if getattr(output, "ndim", 0) == 4]
    if pattern is None:
        return main_parts(known)
    found = fnmatch.filter(known, pattern)
    if not found:
        raise UsageError(f"--layers {pattern!r} matches no layer that returns images: {nearest(pattern, known)}")
    return [name for name in found if same.get(name) not in found]


def of_network(network: Network, methods: Sequence[Method], parts: Sequence[str], channels: int) -> Iterator[Picture]:
    """Draws the filters of the first layer, and images made by optimisation for the first channels of each part."""
    if "filters" in methods:
        try:
            found = filters.first_layer(network.model, network.variables, network.image)
        except UsageError:
            found = None
        if found is not None:
            kernels = list(colour(pictures.around_zero(found.values)))
            shown = tiles(kernels, [""] * len(kernels), columns=16, side=48)
            yield Picture("filters", f"the {len(kernels)} filters of {found.part}, grey is 0", shown)
    for part in parts if "optimised" in methods else ():
        count = min(channels, _channels(network, part))
        made = optimised(network.model, network.variables, network.normalise, network.image, part, range(count))
        drawn = [colour(np.rint(255 * image).astype(np.uint8)) for image in made]
        shown = tiles(drawn, [f"channel {i}" for i in range(count)], columns=8, side=96)
        yield Picture(f"optimised-{_file(part)}", f"images made to excite the first {count} channels of {part}", shown)


def of_data(
    network: Network,
    images: NDArray[np.uint8],
    parts: Sequence[str],
    channels: int,
    count: int = 9,
    advanced: Callable[[str, int], None] = lambda part, done: None,
) -> Iterator[Picture]:
    """Draws, for the first channels of each part, the patches of images that excite them most, a channel a row."""
    for part in parts:
        progress = functools.partial(advanced, part)
        found = most_exciting(
            network.model, network.variables, network.normalise, images, part, count=count, advanced=progress
        )
        rows = min(channels, len(found.values))
        cells = [(channel, rank) for channel in range(rows) for rank in range(found.values.shape[1])]
        drawn = [colour(found.patch(images, *cell)) for cell in cells]
        captions = [f"ch. {channel}" if rank == 0 else "" for channel, rank in cells]
        shown = tiles(drawn, captions, columns=found.values.shape[1])
        text = (
            f"patches of {len(images)} images that excite the first {rows} channels of {part} most, as far as it sees"
        )
        yield Picture(f"exciting-{_file(part)}", text, shown)


def of_image(
    network: Network,
    name: str,
    pixels: NDArray[np.uint8],
    label: int | None,
    methods: Sequence[Method],
    parts: Sequence[str],
) -> Iterator[Picture]:
    """Draws what a network sees in one image.

    Args:
        network: the network.
        name: what the pictures' names begin with.
        pixels: uint8 `[H, W, C]`.
        label: the class that is asked about; None takes the likeliest.
        methods: what to draw, of `OF_IMAGES`.
        parts: the layers to draw feature maps and class activation maps of.
    """
    image = network.normalise(jnp.asarray(pixels[None]))
    logits = jax.jit(functools.partial(attribution.logits, network.model))(network.variables, image)
    chosen = int(jnp.argmax(logits)) if label is None else label
    classes = jnp.array([chosen])
    probability = float(jax.nn.softmax(logits)[0, chosen])
    answer = f"{network.class_names[chosen]!r} (probability {probability:.3f}) in {name}"
    original = colour(pixels)

    if "features" in methods:
        yield from _feature_maps(network, name, image, parts)
    for method in (m for m in methods if m in _PIXELWISE):
        what, draw = _PIXELWISE[method]
        function = jax.jit(functools.partial(_of_pixels(method, network.image), network.model))
        values = np.asarray(function(network.variables, image, classes))[0]
        shown = tiles([original, draw(values)], ["", ""], columns=2, side=_SIDE)
        yield Picture(f"{name}-{method}", f"{what} for {answer}", shown)
    for method in (m for m in methods if m in _MAPS):
        title, of = _MAPS[method]
        maps = []
        for part in parts:
            function = jax.jit(functools.partial(of, network.model, part=part))
            maps.append(pictures.overlay(pixels, np.asarray(function(network.variables, image, classes))[0]))
        if maps:
            shown = tiles([original, *maps], ["", *parts], columns=6, side=_SIDE)
            yield Picture(f"{name}-{method}", f"{title} at {', '.join(parts)} for {answer}", shown)


def _feature_maps(network: Network, name: str, image: jax.Array, parts: Sequence[str]) -> Iterator[Picture]:
    depth = 1 + max((part.count("/") for part in parts), default=0)

    @jax.jit
    def outputs(variables: Any, image: jax.Array) -> list[jax.Array]:
        found = features(network.model, variables, image, depth=depth)
        return [found[part][0].astype(jnp.float32) for part in parts]

    for part, values in zip(parts, jax.device_get(outputs(dict(network.variables), image)), strict=True):
        drawn = pictures.feature_maps(values)[:_MOST_MAPS]
        size = " x ".join(map(str, values.shape))
        shown = tiles(drawn, [""] * len(drawn), columns=8)
        text = f"{len(drawn)} feature maps of {part} ({size}) on {name}, each from its least to its largest value"
        yield Picture(f"{name}-features-{_file(part)}", text, shown)


def _of_pixels(method: Method, image: tuple[int, int, int]) -> Callable[..., jax.Array]:
    """Returns the attribution of a method; the occluding square covers a fourth of each side."""
    side = max(1, min(image[:2]) // 4)
    functions: dict[Method, Callable[..., jax.Array]] = {
        "gradient": attribution.gradient,
        "smoothgrad": attribution.smooth_gradient,
        "integrated": attribution.integrated_gradients,
        "occlusion": functools.partial(attribution.occlusion, window=side, stride=max(1, side // 4)),
    }
    return functions[method]


def _channels(network: Network, part: str) -> int:
    sample = jax.ShapeDtypeStruct((1, *network.image), jnp.float32)
    depth = part.count("/") + 1
    found = jax.eval_shape(lambda v, x: features(network.model, v, x, depth=depth), dict(network.variables), sample)
    return int(found[part].shape[-1])


def colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns images `[..., C]` with 1 or 3 channels; of other numbers the mean."""
    if pixels.shape[-1] in (1, 3):
        return pixels
    return pixels.mean(axis=-1, keepdims=True).astype(np.uint8)


def _file(part: str) -> str:
    return part.replace("/", ".").replace("#", "-")


_PIXELWISE: dict[Method, tuple[str, Callable[[NDArray[np.float32]], NDArray[np.uint8]]]] = {
    "gradient": ("size of the gradient", lambda x: pictures.heat(np.abs(x).max(axis=-1))),
    "smoothgrad": ("size of the mean gradient under noise", lambda x: pictures.heat(np.abs(x).max(axis=-1))),
    "integrated": ("integrated gradients (red for, blue against)", lambda x: pictures.signed(x.sum(axis=-1))),
    "occlusion": ("fall of the logit where covered (red)", lambda x: pictures.signed(x[..., 0])),
}
_MAPS: dict[Method, tuple[str, Callable[..., jax.Array]]] = {
    "gradcam": ("Grad-CAM", cam.grad_cam),
    "gradcam++": ("Grad-CAM++", cam.grad_cam_plus_plus),
}
