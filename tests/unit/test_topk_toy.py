"""The two toys: worth of slates, closed forms, and policies whose mean is known."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from actors.environments import EnvironmentConfig
from actors.envs.topk_toy import TopKToyModel, TopKToyVectorEnv
from actors.envs.topk_toy.fixed_points import best_independent, expected_worth, uncorrected
from actors.ladder import Ladder

TOP_K, OFF_POLICY = TopKToyModel(), TopKToyModel(toy="off_policy", slate_size=1)


@pytest.mark.parametrize(
    ("slate_size", "first", "second", "others"),
    [(1, 1.0, 0.0, 0.0), (2, 10 / 19, 9 / 19, 0.0), (4, 0.5088, 0.4912, 0.0), (16, 0.206, 0.200, 0.0742)],
)
def test_the_best_independent_draws_are_the_published_ones(
    slate_size: int, first: float, second: float, others: float
) -> None:
    pi = best_independent(TOP_K.worth(), slate_size)
    np.testing.assert_allclose(pi, [first, second, *[others] * 8], atol=6e-4)
    assert pi.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("slate_size", [2, 3, 8])
def test_no_other_distribution_is_better(slate_size: int) -> None:
    worth = np.random.default_rng(2).permutation(OFF_POLICY.worth())
    best = expected_worth(best_independent(worth, slate_size), worth, slate_size)
    others = np.random.default_rng(0).dirichlet(np.full(10, 0.5), size=4000)
    near = 0.98 * best_independent(worth, slate_size) + 0.02 * others
    assert max(expected_worth(pi, worth, slate_size) for pi in [*others, *near]) <= best + 1e-12


def test_what_a_gradient_without_correction_learns() -> None:
    pi = uncorrected(OFF_POLICY.worth(), OFF_POLICY.logging_probabilities())
    published = [0.045, 0.082, 0.109, 0.127, 0.136, 0.136, 0.127, 0.109, 0.082, 0.045]
    np.testing.assert_allclose(pi, published, atol=6e-4)
    assert pi @ OFF_POLICY.worth() == pytest.approx(5.5)
    assert OFF_POLICY.logging_probabilities() @ OFF_POLICY.worth() == pytest.approx(4.0)


def test_a_slate_is_worth_its_different_items() -> None:
    env = TopKToyVectorEnv(1000, slate_size=3)
    env.reset(seed=0)
    slates = np.array(list(product(range(10), repeat=3)))
    observation, reward, terminated, truncated, _ = env.step(slates)
    expected = [sum(TOP_K.worth()[item] for item in set(slate)) for slate in slates.tolist()]
    np.testing.assert_array_equal(reward, expected)
    assert terminated.all() and not truncated.any() and (observation == 1.0).all()


@pytest.mark.parametrize(
    ("kwargs", "means", "best"),
    [
        ({}, [5.13, 11.617, 10.0, 14.263], 19.0),
        ({"toy": "off_policy", "slate_size": 1}, [4.0, 5.5, 10.0, 10.0], 10.0),
    ],
)
def test_the_ladder_is_the_one_worked_out(kwargs: dict[str, Any], means: list[float], best: float) -> None:
    with Ladder(EnvironmentConfig(id="headrace/TopKToy-v0", kwargs=kwargs), 20_000, seed=0) as rungs:
        rows = [rungs.baseline(name) for name in rungs.baselines]
        assert rungs.bound("best slate").mean == best
    for row, mean in zip(rows, means, strict=True):
        assert abs(row.mean - mean) < 4 * row.sem + 1e-3, row.name


def test_propensities_are_those_of_the_draws() -> None:
    env = TopKToyVectorEnv(5)
    action = env.baselines()["best independent draws"](env).act(
        np.ones((5, 1)), np.random.default_rng(0), explore=True, env_steps=0
    )
    pi = best_independent(TOP_K.worth(), 2)
    np.testing.assert_allclose(action.log_prob, np.log(pi[action.action]).sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize(("constants", "message"), [({"toy": "bandit"}, "toy"), ({"slate_size": 11}, "slate_size")])
def test_wrong_constants_are_refused(constants: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TopKToyVectorEnv(2, **constants)


def test_who_leaves_with_the_last_step_has_left_and_is_not_cut_off() -> None:
    env = TopKToyVectorEnv(3, max_episode_steps=1)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(np.zeros((3, 2), dtype=np.int64))
    assert terminated.all() and not truncated.any()
