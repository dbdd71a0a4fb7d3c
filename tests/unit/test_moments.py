"""Running moments against numpy on all the data."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.moments import Moments, RewardMoments, RunningMoments


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_merging_in_any_grouping_equals_numpy(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(1e4, 3.0, size=(size, 2)) for size in sizes]
    actors = [RunningMoments((2,)), RunningMoments((2,))]
    total = Moments.empty((2,))
    for i, batch in enumerate(batches):
        actors[i % 2].update(batch)
        if i % 3 == 0:
            total = total.merged(actors[0].take_delta())
    for actor in actors:
        total = total.merged(actor.take_delta())
        assert actor.take_delta().count == 0
    everything = np.concatenate(batches)
    assert total.count == len(everything)
    if len(everything):
        np.testing.assert_allclose(total.mean, everything.mean(axis=0))
    if len(everything) >= 2:
        np.testing.assert_allclose(total.variance, everything.var(axis=0), rtol=1e-6, atol=1e-9)


def test_variance_of_almost_nothing_is_one() -> None:
    assert Moments.empty((2,)).variance.tolist() == [1.0, 1.0]
    assert Moments.of(np.array([[5.0]])).variance.tolist() == [1.0]


def test_float32_input_is_summed_in_float64() -> None:
    values = np.full(2**12, 2.0**24 + 2.0, dtype=np.float32)
    values[0] += 2.0
    assert Moments.of(values).mean == values.astype(np.float64).mean()


def test_state_round_trip() -> None:
    moments = Moments.of(np.random.default_rng(0).normal(size=(7, 3)))
    again = Moments.from_state(moments.state())
    for name, array in moments.state().items():
        np.testing.assert_array_equal(array, again.state()[name])


def test_reward_moments_follow_the_discounted_return() -> None:
    rng = np.random.default_rng(2)
    moments = RewardMoments(3, gamma=0.9)
    running, seen = [0.0] * 3, []
    for _ in range(200):
        reward, valid = rng.normal(size=3), rng.random(3) < 0.8
        ended = (rng.random(3) < 0.2) & valid
        moments.update(reward.astype(np.float64), ended, valid)
        for b in range(3):
            if valid[b]:
                running[b] = running[b] * 0.9 + reward[b]
                seen.append(running[b])
            if ended[b]:
                running[b] = 0.0
    delta = moments.take_delta()
    assert delta.count == len(seen)
    np.testing.assert_allclose(delta.mean, np.mean(seen))
    np.testing.assert_allclose(delta.variance, np.var(seen))


def test_first_forgets_the_running_returns_only() -> None:
    moments = RewardMoments(1, gamma=1.0)
    yes, no = np.ones(1, dtype=bool), np.zeros(1, dtype=bool)
    moments.update(np.array([5.0]), no, yes)
    moments.first()
    moments.update(np.array([1.0]), no, yes)
    assert moments.take_delta().mean == 3.0


def test_import_needs_no_torch() -> None:
    code = "import sys, actors.moments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
