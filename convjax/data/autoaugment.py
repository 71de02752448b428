"""AutoAugment's policies: the 25 pairs of operations that were found for each data set (arXiv:1805.09501, appendix)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, cast

from convjax.data.operations import Name

PolicyName: TypeAlias = Literal["none", "cifar10", "imagenet", "svhn"]
Choice: TypeAlias = tuple[Name, float, int]
"""Operation, probability, magnitude from 0 to 9."""

_TABLES = {
    "imagenet": """
        posterize 0.4 8, rotate 0.6 9
        solarize 0.6 5, auto_contrast 0.6 0
        equalize 0.8 0, equalize 0.6 0
        posterize 0.6 7, posterize 0.6 6
        equalize 0.4 0, solarize 0.2 4
        equalize 0.4 0, rotate 0.8 8
        solarize 0.6 3, equalize 0.6 0
        posterize 0.8 5, equalize 1.0 0
        rotate 0.2 3, solarize 0.6 8
        equalize 0.6 0, posterize 0.4 6
        rotate 0.8 8, colour 0.4 0
        rotate 0.4 9, equalize 0.6 0
        equalize 0.0 0, equalize 0.8 0
        invert 0.6 0, equalize 1.0 0
        colour 0.6 4, contrast 1.0 8
        rotate 0.8 8, colour 1.0 2
        colour 0.8 8, solarize 0.8 7
        sharpness 0.4 7, invert 0.6 0
        shear_x 0.6 5, equalize 1.0 0
        colour 0.4 0, equalize 0.6 0
        equalize 0.4 0, solarize 0.2 4
        solarize 0.6 5, auto_contrast 0.6 0
        invert 0.6 0, equalize 1.0 0
        colour 0.6 4, contrast 1.0 8
        equalize 0.8 0, equalize 0.6 0
    """,
    "cifar10": """
        invert 0.1 0, contrast 0.2 6
        rotate 0.7 2, translate_x 0.3 9
        sharpness 0.8 1, sharpness 0.9 3
        shear_y 0.5 8, translate_y 0.7 9
        auto_contrast 0.5 0, equalize 0.9 0
        shear_y 0.2 7, posterize 0.3 7
        colour 0.4 3, brightness 0.6 7
        sharpness 0.3 9, brightness 0.7 9
        equalize 0.6 0, equalize 0.5 0
        contrast 0.6 7, sharpness 0.6 5
        colour 0.7 7, translate_x 0.5 8
        equalize 0.3 0, auto_contrast 0.4 0
        translate_y 0.4 3, sharpness 0.2 6
        brightness 0.9 6, colour 0.2 8
        solarize 0.5 2, invert 0.0 0
        equalize 0.2 0, auto_contrast 0.6 0
        equalize 0.2 0, equalize 0.6 0
        colour 0.9 9, equalize 0.6 0
        auto_contrast 0.8 0, solarize 0.2 8
        brightness 0.1 3, colour 0.7 0
        solarize 0.4 5, auto_contrast 0.9 0
        translate_y 0.9 9, translate_y 0.7 9
        auto_contrast 0.9 0, solarize 0.8 3
        equalize 0.8 0, invert 0.1 0
        translate_y 0.7 9, auto_contrast 0.9 0
    """,
    "svhn": """
        shear_x 0.9 4, invert 0.2 0
        shear_y 0.9 8, invert 0.7 0
        equalize 0.6 0, solarize 0.6 6
        invert 0.9 0, equalize 0.6 0
        equalize 0.6 0, rotate 0.9 3
        shear_x 0.9 4, auto_contrast 0.8 0
        shear_y 0.9 8, invert 0.4 0
        shear_y 0.9 5, solarize 0.2 6
        invert 0.9 0, auto_contrast 0.8 0
        equalize 0.6 0, rotate 0.9 3
        shear_x 0.9 4, solarize 0.3 3
        shear_y 0.8 8, invert 0.7 0
        equalize 0.9 0, translate_y 0.6 6
        invert 0.9 0, equalize 0.6 0
        contrast 0.3 3, rotate 0.8 4
        invert 0.8 0, translate_y 0.0 2
        shear_y 0.7 6, solarize 0.4 8
        invert 0.6 0, rotate 0.8 4
        shear_y 0.3 7, translate_x 0.9 3
        shear_x 0.1 6, invert 0.6 0
        solarize 0.7 2, translate_y 0.6 7
        shear_y 0.8 4, invert 0.8 0
        shear_x 0.7 9, translate_y 0.8 3
        shear_y 0.8 5, auto_contrast 0.7 0
        shear_x 0.7 2, invert 0.1 0
    """,
}
"""A pair a line: operation, probability and magnitude, twice. ImageNet's repeats some pairs, as the paper's does."""


def _pair(line: str) -> tuple[Choice, Choice]:
    first, second = (part.split() for part in line.split(","))
    return _choice(*first), _choice(*second)


def _choice(name: str, probability: str, magnitude: str) -> Choice:
    return cast(Name, name), float(probability), int(magnitude)


POLICIES: Mapping[str, tuple[tuple[Choice, Choice], ...]] = MappingProxyType(
    {name: tuple(_pair(line) for line in table.strip().splitlines()) for name, table in _TABLES.items()}
)
