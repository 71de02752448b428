import numpy as np
import pytest

from convjax.data import order


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 3), (7, 7), (100, 32), (5, 4)])
def test_every_example_comes_once_an_epoch_whatever_the_batch_size(examples: int, batch_size: int) -> None:
    epochs = 4
    steps = epochs * examples // batch_size
    stream = np.concatenate([order.batch_ids(3, step, batch_size, examples) for step in range(steps)])
    for epoch in range(len(stream) // examples):
        assert sorted(stream[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_a_batch_larger_than_two_epochs_still_sees_each_example_equally_often() -> None:
    assert np.bincount(order.batch_ids(0, 1, 12, 4)).tolist() == [3, 3, 3, 3]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [order.epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for i in range(len(orders)):
        for j in range(i):
            # Two random permutations agree in one place on average; 20 has a probability below 1e-18.
            assert np.sum(orders[i] == orders[j]) < 20


def test_the_order_does_not_depend_on_what_was_asked_before() -> None:
    late = order.batch_ids(5, 40, 8, 50).copy()
    order.orders.cache_clear()
    for step in range(40):
        order.batch_ids(5, step, 8, 50)
    assert (order.batch_ids(5, 40, 8, 50) == late).all()


def test_an_order_cannot_be_changed_by_who_reads_it() -> None:
    with pytest.raises(ValueError, match="read-only"):
        order.epoch_order(0, 0, 10)[0] = 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_a_cut_divides_the_examples_without_overlap(share: float) -> None:
    kept, cut = order.cut(1000, share)
    assert len(cut) == 1000 * share
    assert sorted([*kept, *cut]) == list(range(1000))
    assert (np.diff(kept) > 0).all()


def test_the_cut_is_spread_over_the_whole_split() -> None:
    _, cut = order.cut(10_000, 0.1)
    # The mean of 1,000 numbers drawn from 0..9999 has a deviation of 91; five of them are allowed.
    assert abs(cut.mean() - 4999.5) < 5 * 91
