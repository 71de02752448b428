"""What a run ends with."""

import dataclasses
from typing import Any

from convjax.train.metrics import Evaluation


@dataclasses.dataclass(frozen=True)
class Result:
    """Attributes:
    checkpoint: step of the checkpoint chosen by validation accuracy, the latest one without validation.
    validation: its evaluation on the validation split, None without one.
    test: its evaluation on the test split.
    unaveraged_test: with moving averages, which the evaluations above are of, that of the weights themselves.
    """

    checkpoint: int
    validation: Evaluation | None
    test: Evaluation
    unaveraged_test: Evaluation | None = None

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> "Result":
        """Returns the result that was written as its fields."""
        evaluations = {key: value and Evaluation(**value) for key, value in json.items() if key != "checkpoint"}
        return cls(json["checkpoint"], **evaluations)
