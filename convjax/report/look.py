"""What a report says of a run's network: its answers, its worst errors, its insides."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convjax.data.sheets import tiles
from convjax.data.sources import Split
from convjax.data.splits import Splits
from convjax.inspect import cam, count, gallery, health, pictures
from convjax.report.speed import Speed, speed
from convjax.train import weights
from convjax.train.evaluate import Trained, load_same_data
from convjax.train.metrics import Evaluation, reliability, summarise
from convjax.train.run import Run
from convjax.train.scores import Scores

_ERRORS = 12
_PARTS = 6
_SAMPLE = 512
"""Images that dead units are looked for on."""


@dataclasses.dataclass(frozen=True)
class Error:
    """An example with a wrong answer: its number in the split, classes, the answer's probability, and a picture."""

    example: int
    true: str
    answer: str
    probability: float
    picture: Image.Image


@dataclasses.dataclass(frozen=True)
class Look:
    """Attributes:
    checkpoint: step of the checkpoint that was looked at.
    evaluation: its numbers.
    bins: for each bin of confidence: examples, right answers, sum of confidences.
    errors: the wrong answers with the largest loss, the worst first.
    at: the layer of their class activation maps; empty where the network has no layer that returns images.
    pictures: filters and feature maps.
    units: how the channels of each layer answer.
    norms: statistics of its batch norms.
    sizes: of gradients and updates at the checkpoints that are kept.
    parameters: their number.
    multiply_accumulates: of one image's way through it.
    speed: how fast it was trained.
    """

    checkpoint: int
    evaluation: Evaluation
    bins: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
    errors: list[Error]
    at: str
    pictures: list[gallery.Picture]
    units: list[health.Units]
    norms: list[health.Norm]
    sizes: list[health.Sizes]
    parameters: int
    multiply_accumulates: int
    speed: Speed | None


def look(run: Run, say: Callable[[str], None]) -> Look:
    """Looks into the best checkpoint of a run.

    The test split is scored only if the run is finished; before, the validation split, without one the train split.

    Args:
        run: the run; nothing is written to it.
        say: told what is being done.

    Raises:
        UsageError: it has no checkpoint yet, or its data are not there.
        RunError: something of it is damaged.
    """
    data = load_same_data(run.read_config(), run.read_info(), run)
    trained = Trained.read(run, "best")
    network = weights.of_trained(trained, run.path.name)
    name = _split(run, data)
    split = data.splits[name]
    say(f"scoring {len(split)} examples of the {name} split")
    scores = trained.scores(split)
    parts = gallery.layers(network)
    say("looking at the worst errors, filters and feature maps")
    errors = worst(network, split, scores, parts[-1] if parts else None)
    shown = list(gallery.of_network(network, ("filters",), (), 0))
    for picture in gallery.of_image(network, "example", split.images[0], None, ("features",), _some(parts)):
        text = picture.shows.replace("on example", f"on the first example of the {name} split")
        shown.append(dataclasses.replace(picture, shows=text))
    say("looking at units, norms, gradients and updates")
    return Look(
        checkpoint=trained.checkpoint,
        evaluation=summarise(name, scores, split.labels, trained.info.class_names),
        bins=reliability(np.asarray(scores.confidence), np.asarray(scores.rank) == 0),
        errors=errors,
        at=parts[-1] if parts else "",
        pictures=shown,
        units=health.units(network.model, network.variables, network.normalise, split.images[:_SAMPLE]),
        norms=health.norms(network.variables),
        sizes=health.sizes(run, trained, data.splits["train"]),
        parameters=count.parameters(network.model, network.image),
        multiply_accumulates=count.multiply_accumulates(network.model, network.image),
        speed=speed(run, network.model, network.image),
    )


def worst(network: gallery.Network, split: Split, scores: Scores, part: str | None) -> list[Error]:
    """Returns the wrong answers with the largest loss, each with the Grad-CAM of the answer at a layer, if given."""
    loss, prediction, confidence = (np.asarray(x) for x in (scores.loss, scores.prediction, scores.confidence))
    wrong = np.flatnonzero(np.asarray(scores.rank) > 0)
    ids = wrong[np.argsort(-loss[wrong], kind="stable")][:_ERRORS]
    if not len(ids):
        return []
    rows: list[list[NDArray[np.uint8]]] = [[image] for image in split.images[ids]]
    if part is not None:
        explain = jax.jit(functools.partial(cam.grad_cam, network.model, part=part))
        maps = explain(dict(network.variables), network.normalise(jnp.asarray(split.images[ids])), prediction[ids])
        rows = [[*row, pictures.overlay(row[0], values)] for row, values in zip(rows, np.asarray(maps), strict=True)]
    names = network.class_names
    return [
        Error(
            example=int(i),
            true=names[split.labels[i]],
            answer=names[prediction[i]],
            probability=float(confidence[i]),
            picture=tiles([gallery.colour(image) for image in row], [""] * len(row), columns=2, side=96),
        )
        for i, row in zip(ids, rows, strict=True)
    ]


def _split(run: Run, data: Splits) -> str:
    if run.result.is_file():
        return "test"
    return "validation" if len(data.splits["validation"]) else "train"


def _some(parts: list[str]) -> list[str]:
    """Returns a few layers from the first to the last."""
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(_PARTS, len(parts))).round().astype(int))
    return [parts[i] for i in chosen]
