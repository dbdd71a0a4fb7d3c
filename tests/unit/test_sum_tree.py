"""The sum tree against the obvious slow way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay_server.sum_tree import SumTree

PRIORITIES = st.one_of(
    st.just(0.0), st.floats(1e-6, 1e3), st.sampled_from([5e-324, 1e-300, 1e-12, 1e100]), st.integers(0, 5).map(float)
)


def naive_masses(priorities, exponent):
    return np.array([p**exponent if p > 0 else 0.0 for p in priorities])


def naive_draw(masses, positions):
    """First slot whose cumulative mass exceeds the position, among slots with mass."""
    bounds = np.cumsum(masses)
    slots = np.searchsorted(bounds, positions, side="right")
    return np.minimum(slots, np.flatnonzero(masses)[-1])


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 200),
    exponent=st.sampled_from([0.0, 0.6, 1.0]),
    steps=st.lists(st.lists(st.tuples(st.integers(0, 10**6), PRIORITIES), min_size=1, max_size=40), max_size=12),
)
def test_sequences_of_updates(capacity, exponent, steps):
    tree = SumTree(capacity, exponent)
    expected = np.zeros(capacity)
    for step in steps:
        slots = np.array([slot % capacity for slot, _ in step])
        priorities = np.array([priority for _, priority in step])
        tree.assign(slots, priorities)
        for slot, priority in zip(slots, priorities, strict=True):
            expected[slot] = priority
        tree.check_valid()
        np.testing.assert_array_equal(tree.priorities, expected)
        masses = naive_masses(expected, exponent)
        assert tree.total == pytest.approx(masses.sum(), rel=1e-12)
        assert tree.largest == expected.max()
        if masses.sum() > 0:
            uniforms = np.linspace(0, np.nextafter(1.0, 0.0), 50)
            for stratified in (False, True):
                drawn, shares = tree.draw(uniforms, np.array([20, 0, 30]), stratified)
                assert (masses[drawn] > 0).all()
                np.testing.assert_allclose(shares, masses[drawn] / masses.sum(), rtol=1e-12)


@pytest.mark.parametrize("capacity", [1, 2, 7, 8, 9, 63, 64, 65, 513, 4096])
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_draws_match_cumulative_search(capacity, exponent):
    rng = np.random.default_rng(capacity)
    priorities = np.where(rng.random(capacity) < 0.3, 0.0, rng.integers(1, 9, capacity)).astype(float)
    priorities[rng.integers(capacity)] = 3.0
    tree = SumTree(capacity, exponent)
    tree.assign(np.arange(capacity), priorities)
    masses = naive_masses(priorities, exponent)
    uniforms = rng.random(400)
    ours, _ = tree.draw(uniforms, np.array([400]), stratified=False)
    theirs = naive_draw(masses, uniforms * masses.sum())
    assert np.count_nonzero(ours != theirs) <= 1  # a position within rounding of a boundary may fall either side


def test_stratified_draws_have_one_in_each_stratum_of_each_group():
    tree = SumTree(1000, 1.0)
    tree.assign(np.arange(1000), np.ones(1000))
    slots, _ = tree.draw(np.random.default_rng(0).random(150), np.array([100, 50]), stratified=True)
    np.testing.assert_array_equal(slots[:100] // 10, np.arange(100))
    np.testing.assert_array_equal(slots[100:] // 20, np.arange(50))


def test_the_last_position_falls_on_the_last_slot_with_mass():
    rng = np.random.default_rng(1)
    almost_one = np.array([np.nextafter(1.0, 0.0)])
    for _ in range(300):
        size = int(rng.integers(2, 300))
        priorities = rng.random(size) * 10.0 ** rng.integers(-8, 8, size)
        priorities[rng.integers(size) :] = 0.0
        priorities[0] = 1.0
        tree = SumTree(size, 1.0)
        tree.assign(np.arange(size), priorities)
        for stratified in (False, True):
            slot = tree.draw(almost_one, np.array([1]), stratified)[0][0]
            assert priorities[slot] > 0.0


def test_many_small_updates_do_not_drift():
    rng = np.random.default_rng(2)
    tree = SumTree(256, 0.7)
    for _ in range(3000):
        tree.assign(rng.integers(0, 256, 8), 10.0 ** rng.uniform(-8, 8, 8))
    tree.check_valid()
    tree.assign(np.arange(256), np.zeros(256))
    assert tree.total == 0.0


def test_check_valid_sees_a_wrong_node():
    tree = SumTree(100, 1.0)
    tree.assign(np.arange(100), np.ones(100))
    tree._sums[-1] += 1e-9
    with pytest.raises(AssertionError, match="sum at node"):
        tree.check_valid()


@pytest.mark.parametrize("capacity", [1, 9, 4096, 2**18])
def test_a_nodes_children_are_one_cache_line(capacity):
    tree = SumTree(capacity, 1.0)
    for nodes in (tree._sums, tree._largest):
        assert ((nodes.ctypes.data + 8 * tree._levels) % 64 == 0).all()


def test_draws_do_not_depend_on_their_place_in_a_call():
    """Positions go down in blocks; each has to arrive as if it were alone."""
    rng = np.random.default_rng(5)
    tree = SumTree(5000, 1.0)
    tree.assign(np.arange(5000), rng.exponential(size=5000))
    uniforms = rng.random(1000)
    slots, shares = tree.draw(uniforms, np.array([1000]), stratified=False)
    for i, uniform in enumerate(uniforms):
        slot, share = tree.draw(np.array([uniform]), np.array([1]), stratified=False)
        assert (slot[0], share[0]) == (slots[i], shares[i])


def test_memory_per_slot():
    assert SumTree(100_000, 0.6).nbytes / 100_000 < 18.4
