"""Carries weights between our variables and PyTorch's state dicts, as NumPy arrays: PyTorch is not needed here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from convjax.errors import UsageError, require_shapes
from convjax.interop import layout
from convjax.interop.layout import Array, Shape
from convjax.interop.rules import Place, place
from convjax.interop.torch_families import Library, family
from convjax.models import MODELS, Model, create

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
"""Names that an error lists of each kind."""


class _Entry(NamedTuple):
    """A variable of ours: its name there, its shape here, and how it is laid out there."""

    name: str
    shape: Shape
    place: Place

    @property
    def there(self) -> Shape:
        return layout.torch_shape(self.shape, self.place.layout, self.place.pixels)


def from_torch(
    model: str | Model,
    state_dict: Mapping[str, Array],
    *,
    library: Library | None = None,
    image: Shape | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Returns the variables of a model that hold a PyTorch network's weights.

    Args:
        model: its name, as in `convjax models`, or the model itself.
        state_dict: of the library's network of that name, as float arrays. Its counts of batches are not read.
        library: whose names; None for those that the model follows (torchvision's, or else timm's).
        image: (height, width, channels); None for those that a named model is usually used with.
        fields: those of a named model that differ, as `num_classes`.

    Returns:
        `params`, and `batch_stats` where there are some: nested dictionaries of float32 arrays.

    Raises:
        UsageError: entries are missing, in excess, or of another shape than the model's; or PyTorch's libraries
            have no such network.
    """
    entries = _entries(model, fields, library, image)
    name = model if isinstance(model, str) else type(model).__name__
    ones = _ones(entries)
    found = {key: np.shape(value) for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}
    require_shapes(f"the state dict for {name}", {e.name: e.there for e in entries.values()} | ones, found)
    for key in ones:
        if not np.all(np.asarray(state_dict[key]) == 1):
            raise UsageError(f"{key} of the state dict for {name} must be all ones: {name} has no such scale")
    flat = {
        path: np.ascontiguousarray(
            layout.from_torch(np.asarray(state_dict[e.name], np.float32), e.place.layout, e.place.pixels, e.shape)
        )
        for path, e in entries.items()
    }
    return dict(flax.traverse_util.unflatten_dict(flat, sep="/"))


def to_torch(
    model: str | Model,
    variables: Mapping[str, Any],
    *,
    library: Library | None = None,
    image: Shape | None = None,
    **fields: Any,
) -> dict[str, Array]:
    """Returns the PyTorch state dict that holds a model's variables: the inverse of `from_torch`.

    Counts of batches are left out; PyTorch's `load_state_dict` does not miss them.

    Raises:
        UsageError: as `from_torch`.
    """
    entries = _entries(model, fields, library, image)
    name = model if isinstance(model, str) else type(model).__name__
    flat = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    require_shapes(
        f"the variables for {name}",
        {path: e.shape for path, e in entries.items()},
        {path: np.shape(value) for path, value in flat.items()},
    )
    state_dict = {
        e.name: np.ascontiguousarray(
            layout.to_torch(np.asarray(flat[path], np.float32), e.place.layout, e.place.pixels)
        )
        for path, e in entries.items()
    }
    return state_dict | {key: np.ones(shape, np.float32) for key, shape in _ones(entries).items()}


def names_and_shapes(model: str | Model, *, library: Library | None = None, **fields: Any) -> dict[str, Shape]:
    """Returns the entries that `to_torch` makes of a model's variables, and their shapes."""
    entries = _entries(model, fields, library, None)
    return {e.name: e.there for e in entries.values()} | _ones(entries)


def _entries(
    model: str | Model, fields: Mapping[str, Any], library: Library | None, image: Shape | None
) -> dict[str, _Entry]:
    """Returns the entries of a model's variables by path, as `params/stem/conv/kernel`."""
    if isinstance(model, str):
        name = model
        model = create(name, **fields)
        image = image or MODELS[name].image
    flat = flax.traverse_util.flatten_dict(_shapes(model, image or (224, 224, 3)), sep="/")
    modules = {path: path.split("/", 1)[1].rsplit("/", 1)[0] for path in flat}
    rules = family(model, modules.values(), library)
    entries = {}
    for path, shape in flat.items():
        found = place(rules, modules[path])
        leaf = path.rsplit("/", 1)[1]
        # The layout is the weight's; the others are vectors.
        here = found if leaf == "kernel" or found.leaf else Place(found.module)
        entries[path] = _Entry(f"{found.module}.{found.leaf or _LEAVES[leaf]}", shape.shape, here)
    return entries


def _shapes(model: Model, image: Shape) -> Any:
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *image)), train=False))


def _ones(entries: Mapping[str, _Entry]) -> dict[str, Shape]:
    """Returns name and shape there of the scales of norms that only shift here: PyTorch's have them all the same."""
    modules = {path.removeprefix("batch_stats/").removesuffix("/mean"): e for path, e in entries.items()}
    return {
        f"{e.place.module}.weight": e.shape
        for module, e in modules.items()
        if f"batch_stats/{module}/mean" in entries and f"params/{module}/scale" not in entries
    }
