"""What the slate tasks are measured against: best slates, the worth of time, the bound, the ladder of policies."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from actors.environments import EnvironmentConfig, make_vector_env
from actors.envs.choice import ExponentialCascade, MultinomialLogit, PositionBased, Proportional
from actors.envs.slate import InterestModel, SlateModel, SlateVectorEnv
from actors.envs.slate.baselines import ranked
from actors.envs.slate.bounds import best_interests_bound, highest
from actors.envs.slate.planning import best_slates, minutes_taken, odds, watch_rates
from actors.evaluator import play_first_episodes
from actors.vector_steps import VectorSteps

CHOICES = [MultinomialLogit(), Proportional(), ExponentialCascade()]


def expected(choice: Any, scores: Any, gain: Any, none: float, slate: Any, shown: Any) -> float:
    shares = choice.probabilities(np.float32(scores)[None, list(slate)], np.array([shown]))[0]
    return float(shares[:-1] @ gain[list(slate)] + shares[-1] * none)


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: type(choice).__name__)
def test_no_slate_is_better_than_the_best(choice: Any, fill: bool) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, (30, 6)).astype(np.float32)
    gain = rng.normal(size=(30, 6)).astype(np.float32)
    none = rng.normal(size=30).astype(np.float32)
    slates, shown = best_slates(choice, scores, gain, none, 3, fill=fill)
    assert shown.all() or not fill
    for row in range(30):
        ours = expected(choice, scores[row], gain[row], none[row], slates[row], shown[row])
        best = -np.inf
        for size in [3] if fill else [0, 1, 2, 3]:
            filled, empty = [True] * size + [False] * (3 - size), [0] * (3 - size)
            for slate in permutations(range(6), size):
                value = expected(choice, scores[row], gain[row], none[row], [*slate, *empty], filled)
                best = max(best, value)
        assert ours == pytest.approx(best, abs=1e-5)


def test_odds_are_masses_of_models_with_masses() -> None:
    scores = np.float32([[0.3, -0.9], [1.0, 0.0]])
    np.testing.assert_allclose(odds(MultinomialLogit(), scores), np.exp(2 * scores - 2), rtol=1e-5)
    np.testing.assert_allclose(odds(PositionBased(), scores), np.exp(2 * scores), rtol=1e-5)


def test_the_rate_is_minutes_watched_for_minutes_taken_by_the_best_slates() -> None:
    model, choice = SlateModel(slots=1), MultinomialLogit()
    scores, quality = np.float32([[[1.0, 1.0]]]), np.float32([[3.0, -3.0]])
    rate = np.float32([1.0])
    for _ in range(4):
        rate = watch_rates(model, choice, scores, minutes_taken(model, quality), rate, fill=True)
    # the good one only: watched half the time, 4 (1 - .9 x 3 / 3.4) minutes, else half a minute
    assert rate[0] == pytest.approx(0.5 * 4 / (0.5 * 4 * (1 - 0.9 * 3 / 3.4) + 0.5 * 0.5), rel=1e-5)


def test_heights_are_reached_and_never_passed() -> None:
    rng = np.random.default_rng(0)
    starts = rng.uniform(-1, 1, (500, 4)).astype(np.float32)
    heights = highest(starts, InterestModel(0.3), rng)
    assert (heights >= starts).all() and (heights <= 1).all()
    assert (heights[starts > 0.9] > 0.98).mean() > 0.9
    assert (heights[starts < -0.9] < -0.8).mean() > 0.8


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: type(choice).__name__)
def test_the_bound_is_above_what_is_reached_where_interests_stand_still(choice: Any) -> None:
    env = SlateVectorEnv(40, choice_model=choice, obs_mode="ids", interest_step=0.0, budget_minutes=80.0)
    env.reset(seed=3)
    bound = best_interests_bound(env.simulation)
    played = play_first_episodes(env.baselines()["planner with interests as they are"](env), VectorSteps(env), 3)
    planned = played.returns
    assert bound.mean() > planned.mean()
    assert planned.mean() > 0.75 * bound.mean()  # the planner all but is the best policy of such users


def test_models_without_an_exact_slate_have_the_bound_of_the_best_document() -> None:
    env = SlateVectorEnv(3, choice_model="position_based")
    env.reset(seed=0)
    best = float(env.simulation.catalogue.quality.max())
    np.testing.assert_allclose(best_interests_bound(env.simulation), 200 / (1 - 0.9 * best / 3.4), rtol=1e-4)


def test_baselines_act_with_scores_as_with_slates() -> None:
    by_slate, by_scores = (SlateVectorEnv(20, action_mode=mode) for mode in ("slate", "scores"))
    for env in (by_slate, by_scores):
        env.reset(seed=1)
    measure = np.random.default_rng(0).normal(size=(20, 20))
    slate, scores = (ranked(env.simulation, measure).action for env in (by_slate, by_scores))
    np.testing.assert_array_equal(by_scores.simulation._slate(scores), slate)
    assert by_scores.single_action_space.contains(scores[0])


PUBLISHED = {
    "SlateMNL": [149.3, 159.1, 171.5, 231.3, 347.6, 377.9],
    "SlateCascade": [154.7, 161.0, 175.2, 290.6, 387.2, 401.4],
}


@pytest.mark.parametrize("task", PUBLISHED)
def test_ladder_is_the_published_one(task: str) -> None:
    steps = VectorSteps(make_vector_env(EnvironmentConfig(id=f"headrace/{task}-v0", kwargs={"obs_mode": "ids"}), 64))
    baselines = steps.env.unwrapped.baselines()  # type: ignore[attr-defined]
    for (name, build), mean in zip(baselines.items(), PUBLISHED[task], strict=True):
        returns = play_first_episodes(build(steps.env.unwrapped), steps, 77).returns
        assert abs(returns.mean() - mean) < 3.5 * returns.std() / 8, name
