import numpy as np
import pytest
from numpy.typing import NDArray

from convjax.data.images import permuted
from convjax.errors import UsageError
from convjax.inspect.neighbours import correlation


def moving_average(width: int) -> NDArray[np.uint8]:
    """Rows and columns of noise averaged over windows: two pixels d apart share width - d of width numbers in a row."""
    noise = np.random.default_rng(0).normal(size=(4000, 8 + width - 1, 8 + width - 1, 1))
    rows = np.sum([noise[:, i : i + 8] for i in range(width)], axis=0)
    both = np.sum([rows[:, :, i : i + 8] for i in range(width)], axis=0)
    return np.clip(np.rint(128 + 12 * both), 0, 255).astype(np.uint8)


def test_correlation_of_a_moving_average_falls_along_a_line() -> None:
    found = correlation(moving_average(4), [0, 1, 2, 3, 4, 5])
    assert found == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0], abs=0.02)


def test_pixels_that_never_vary_have_no_part() -> None:
    images = moving_average(4)
    bordered = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=7)
    assert correlation(bordered, [1, 2]) == pytest.approx(correlation(images, [1, 2]), abs=1e-6)


def test_a_permutation_makes_distance_mean_nothing() -> None:
    found = correlation(permuted(moving_average(4), 0), [1, 2, 3, 4])
    assert max(found) - min(found) < 0.15
    assert max(found) < 0.4


@pytest.mark.parametrize(("distance", "message"), [(8, "from 0 to 7"), (-1, "from 0 to 7")])
def test_a_distance_beyond_the_image_is_refused(distance: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        correlation(moving_average(2), [distance])


def test_images_without_variation_are_told() -> None:
    with pytest.raises(UsageError, match="no pixel varies"):
        correlation(np.full((3, 4, 4, 1), 9, np.uint8), [1])
