"""What the page asks and what it is answered: JSON in, JSON out."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from convjax.errors import UsageError
from convjax.explore.network import MAX_DEPTH, Network
from convjax.explore.operations import KERNELS, SIDES, Convolution, Normalisation, Pooling, View, pixels
from convjax.explore.pictures import MAX_BYTES, UPLOADS, Pictures
from convjax.explore.wire import array

_MAPS = 16
"""Feature maps that are sent at once."""
_CLASSES = 10
"""Classes that are listed with their probabilities."""

T = TypeVar("T")


class Answers:
    """Answers each question of the page.

    Attributes:
        pictures: the images.
        network: the run's network, None without a run.
    """

    def __init__(self, pictures: Pictures, network: Network | None, name: str = "", note: str = "") -> None:
        """Takes what there is to show: `name` is what the run is called, `note` what the page says when it opens."""
        self.pictures, self.network, self._name, self._note = pictures, network, name, note
        self._questions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "start": self._start,
            "convolution": self._convolution,
            "pooling": self._pooling,
            "normalisation": self._normalisation,
            "network": self._walk,
            "maps": self._feature_maps,
            "patch": self._patch,
        }

    def __call__(self, question: str, content: object) -> dict[str, Any] | None:
        """Returns the answer to a question; None where there is no such question.

        Raises:
            UsageError: the content is not what the question takes.
            ValueError: likewise, of `convjax.ops`.
        """
        answer = self._questions.get(question)
        if answer is None:
            return None
        if not isinstance(content, dict):
            raise UsageError("the request must be an object")
        try:
            return answer(content)
        except KeyError as error:
            raise UsageError(f"the request lacks {error}") from error

    def uploaded(self, content: bytes) -> dict[str, Any]:
        """Takes an uploaded file and returns the image's id and name."""
        key = self.pictures.add(content)
        return {"id": key, "name": self.pictures[key].name}

    def _start(self, _: dict[str, Any]) -> dict[str, Any]:
        network = self.network
        described = network and {
            "name": self._name,
            "model": type(network.weights.model).__name__,
            "image": network.weights.image,
        }
        return {
            "images": [{"id": key, "name": picture.name} for key, picture in self.pictures.examples.items()],
            "kernels": [{"name": name, "kernel": kernel} for name, kernel in KERNELS.items()],
            "sides": SIDES,
            "depths": MAX_DEPTH,
            "limits": {"bytes": MAX_BYTES, "uploads": UPLOADS},
            "network": described,
            "note": self._note,
        }

    def _image(self, question: dict[str, Any]) -> Image.Image:
        return self.pictures[_text(question, "image")].image

    def _convolution(self, question: dict[str, Any]) -> dict[str, Any]:
        image = self._image(question)
        return _view(_read(Convolution, question["convolution"])(image))

    def _pooling(self, question: dict[str, Any]) -> dict[str, Any]:
        image, convolution = self._image(question), _read(Convolution, question["convolution"])
        pooling = _read(Pooling, question["pooling"])
        of_image = question["of"] == "image"
        given = pixels(image, "grey", convolution.side) if of_image else convolution(image).output
        return _view(pooling(given))

    def _normalisation(self, question: dict[str, Any]) -> dict[str, Any]:
        activations = _read(Convolution, question["convolution"])(self._image(question)).output
        normalised, mean, variance = _read(Normalisation, question["normalisation"])(activations)
        return {"input": array(activations), "output": array(normalised), "mean": mean, "variance": variance}

    def _required(self) -> Network:
        if self.network is None:
            raise UsageError("there is no network: start with a run, as in convjax explore runs/digits")
        return self.network

    def _walk(self, question: dict[str, Any]) -> dict[str, Any]:
        network, image = self._required(), self._image(question)
        parts = network.parts(image, question["depth"])
        probabilities = network.probabilities(image)
        order = np.argsort(-probabilities, kind="stable")[:_CLASSES]
        names = network.weights.class_names
        return {
            "input": array(network.pixels(image).astype(np.float32) / np.float32(255)),
            "parts": [
                {"name": name, "shape": output.shape, "zero": float(np.mean(output == 0))}
                for name, output in parts.items()
            ],
            "classes": [{"name": names[i], "probability": float(probabilities[i])} for i in order],
        }

    def _feature_maps(self, question: dict[str, Any]) -> dict[str, Any]:
        parts = self._required().parts(self._image(question), question["depth"])
        output, first = parts.get(_text(question, "part")), question["first"]
        if output is None or type(first) is not int or not 0 <= first < output.shape[-1]:
            raise UsageError("the network has no such feature maps")
        return {"maps": array(output if output.ndim == 1 else output[..., first : first + _MAPS])}

    def _patch(self, question: dict[str, Any]) -> dict[str, Any]:
        unit, image = question["unit"], self._image(question)
        if unit is not None and not (isinstance(unit, list) and len(unit) == 2):
            raise UsageError(f"unit is {unit!r}: it must be [row, column] or null")
        where = None if unit is None else (unit[0], unit[1])
        found = self._required().patch(image, question["depth"], _text(question, "part"), question["channel"], where)
        return {"unit": found.unit, "value": found.value, "box": found.box, "gradient": array(found.gradient)}


def _read(kind: type[T], content: object) -> T:
    """Returns a configuration from JSON.

    Raises:
        UsageError: fields are missing or unknown.
    """
    if not isinstance(content, dict):
        raise UsageError(f"{kind.__name__} takes an object, not {type(content).__name__}")
    try:
        return kind(**content)
    except TypeError as error:
        raise UsageError(f"{kind.__name__}: {error}") from error


def _text(question: Mapping[str, Any], field: str) -> str:
    if not isinstance(question[field], str):
        raise UsageError(f"{field} is {question[field]!r}: it must be a text")
    return str(question[field])


def _view(view: View) -> dict[str, Any]:
    return {"input": array(view.input), "output": array(view.output), "window": view.window, "pads": view.pads}
