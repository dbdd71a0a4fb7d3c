"""What ProtoAction is measured against: plans, bounds, beliefs and the ladder of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.environments import EnvironmentConfig
from actors.envs.proto_action import ProtoAction, ProtoActionModel, ProtoActionVectorEnv
from actors.envs.proto_action.baselines import BeliefGreedy
from actors.envs.proto_action.beliefs import Prior, TasteBelief
from actors.envs.proto_action.bounds import upper_bound
from actors.envs.proto_action.planning import beam_search, improve, plan, plan_value, two_steps
from actors.ladder import ladder
from actors.seeds import SeedFamily, derive

ID = "headrace/ProtoAction-v0"
TINY = ProtoActionModel(items=7, dim=3, clusters=3, lam=0.8, reward_noise=0.0)


def tiny(num_users: int, model: ProtoActionModel = TINY) -> ProtoAction:
    simulation = ProtoAction(model, num_users)
    simulation.generator = np.random.default_rng(4)
    simulation.reset()
    return simulation


def every_sequence(steps: int) -> NDArray[np.int64]:
    return np.array(list(itertools.product(range(TINY.items), repeat=steps)))


def value_of(model: ProtoActionModel, items: NDArray[Any], taste: NDArray[Any], ids: Any) -> float:
    """Sum of uncut expected rewards of one user, straight from the definition."""
    satiation, total = np.zeros(taste.shape), 0.0
    for item in ids:
        total += 5 * (taste - model.lam * satiation) @ items[item]
        satiation = 0.7 * satiation + 0.3 * items[item]
    return total


def test_the_closed_form_of_a_sequence_is_its_sum_of_rewards() -> None:
    simulation = tiny(5)
    items, taste = simulation.catalogue.items.astype(float), simulation.state.taste
    ids = np.random.default_rng(0).integers(7, size=(5, 9))
    expected = [value_of(TINY, items, taste[user], ids[user]) for user in range(5)]
    np.testing.assert_allclose(plan_value(TINY, taste, simulation.catalogue.items[ids]), expected, rtol=1e-4)


def test_plan_and_bound_lie_around_the_best_of_all_sequences() -> None:
    simulation, steps = tiny(20), 5
    items, taste = simulation.catalogue.items, simulation.state.taste
    sequences = items[every_sequence(steps)]
    best = np.array([plan_value(TINY, np.tile(u, (len(sequences), 1)), sequences).max() for u in taste])
    planned = plan_value(TINY, taste, items[plan(TINY, items, taste, steps, width=8, pool=7)])
    bound = upper_bound(TINY, items, taste, steps)
    assert (planned <= best + 1e-4).all() and (bound >= best - 1e-4).all()
    assert np.mean(planned) > 0.99 * np.mean(best)
    assert np.mean(bound) < np.mean(best) + 1.5


def test_more_rounds_lower_the_bound_to_what_the_relaxation_allows() -> None:
    simulation = tiny(30)
    items, taste = simulation.catalogue.items, simulation.state.taste
    loose, tight = (upper_bound(TINY, items, taste, 6, rounds) for rounds in (1, 300))
    assert (tight <= loose).all() and tight.mean() < loose.mean() - 0.5


def test_a_beam_as_wide_as_all_beginnings_finds_the_best_sequence() -> None:
    simulation, steps = tiny(10), 4
    items, taste = simulation.catalogue.items, simulation.state.taste
    sequences = items[every_sequence(steps)]
    best = [plan_value(TINY, np.tile(u, (len(sequences), 1)), sequences).max() for u in taste]
    found = beam_search(TINY, items, taste, steps, width=7**steps, pool=7)
    np.testing.assert_allclose(plan_value(TINY, taste, items[found]), best, rtol=1e-5)


@pytest.mark.parametrize("width", [1, 3])
def test_a_narrow_beam_keeps_the_most_promising_beginnings(width: int) -> None:
    simulation, steps = tiny(10), 6
    items, tastes = simulation.catalogue.items, simulation.state.taste
    found = beam_search(TINY, items, tastes, steps, width=width, pool=7)
    for user, taste in enumerate(tastes.astype(float)):
        beams: list[tuple[int, ...]] = [()]
        best = int(np.argmax(items @ taste))
        for left in range(steps - 1, -1, -1):
            longer = [(*beam, item) for beam in beams for item in range(7)]
            promise = np.array([value_of(TINY, items, taste, beam + (best,) * left) for beam in longer])
            beams = [longer[i] for i in np.argsort(-promise)[:width]]
        expected = max(value_of(TINY, items, taste, beam) for beam in beams)
        assert value_of(TINY, items, taste, found[user]) == pytest.approx(expected, rel=1e-4)


def test_improving_stops_where_no_single_item_is_better() -> None:
    simulation = tiny(10)
    items, taste = simulation.catalogue.items, simulation.state.taste
    first = np.random.default_rng(0).integers(7, size=(10, 6))
    ids = improve(TINY, items, taste, first)
    value = plan_value(TINY, taste, items[ids])
    assert (value >= plan_value(TINY, taste, items[first])).all()
    for t, item in itertools.product(range(6), range(7)):
        other = ids.copy()
        other[:, t] = item
        assert (plan_value(TINY, taste, items[other]) <= value + 1e-4).all()


def test_two_steps_compares_all_pairs() -> None:
    simulation = tiny(10)
    items, taste = simulation.catalogue.items, simulation.state.taste
    for _ in range(3):
        simulation.step(np.random.default_rng(0).normal(size=(10, 3)))
    satiation = simulation.state.satiation
    expected = []
    for u, m in zip(taste.astype(float), satiation.astype(float), strict=True):
        pairs = {
            (i, j): (u - 0.8 * m) @ items[i] + (u - 0.8 * (0.7 * m + 0.3 * items[i])) @ items[j]
            for i, j in itertools.product(range(7), repeat=2)
        }
        expected.append(max(pairs, key=lambda pair: pairs[pair])[0])
    np.testing.assert_array_equal(two_steps(TINY, items, taste, satiation, looked_at=7), expected)


@pytest.mark.parametrize("kinds", [1, 3])
@pytest.mark.parametrize("step", [0.0, 0.3])
def test_the_belief_is_bayes_rule_on_a_grid(step: float, kinds: int) -> None:
    """Two dimensions, so that the posterior can be summed over a fine grid."""
    axis = np.linspace(-5, 5, 161)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    means = np.array([[0.3, -0.2], [-1.0, 1.0], [1.0, 0.5]])[:kinds]
    weights = np.array([0.5, 0.3, 0.2])[:kinds] / np.array([0.5, 0.3, 0.2])[:kinds].sum()
    covariance = np.array([[0.8, 0.3], [0.3, 0.5]])
    apart = grid[:, None] - means
    posterior = np.exp(-0.5 * np.einsum("nki,ij,nkj->nk", apart, np.linalg.inv(covariance), apart)) @ weights
    kernel = np.exp(-0.5 * ((axis[:, None] - axis) / step) ** 2) if step else np.eye(161)
    kernel /= kernel.sum(axis=0)
    belief = TasteBelief(Prior(means, weights, covariance), noise=0.5, step=step, num_users=2)
    rng = np.random.default_rng(0)
    for _ in range(6):
        h, y = rng.normal(size=2), rng.normal()
        posterior *= np.exp(-0.5 * ((y - grid @ h) / 0.5) ** 2)
        posterior = (kernel @ posterior.reshape(161, 161) @ kernel.T).reshape(-1)
        posterior /= posterior.sum()
        belief.observe(np.array([1]), h[None], np.array([y]))
        np.testing.assert_allclose(belief.expected()[1], posterior @ grid, atol=2e-3)
    if kinds == 1:
        apart = grid - posterior @ grid
        np.testing.assert_allclose(belief.covariance[1], np.einsum("n,ni,nj->ij", posterior, apart, apart), atol=2e-3)
    np.testing.assert_allclose(belief.expected()[0], weights @ means)
    belief.forget(np.array([1]))
    np.testing.assert_allclose(belief.expected()[1], weights @ means)
    np.testing.assert_array_equal(belief.covariance[1], covariance)


def test_a_prior_keeps_share_mean_and_covariance_of_its_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([4, 9], [3000, 1000])
    tastes = rng.normal(size=(4000, 2)) @ np.array([[0.5, 0.2], [0.0, 0.3]]) + np.where(groups == 4, 1.0, -2.0)[:, None]
    prior = Prior.of(tastes, groups)
    np.testing.assert_allclose(prior.weights, [0.75, 0.25])
    np.testing.assert_allclose(prior.means, [[1.0, 1.0], [-2.0, -2.0]], atol=0.05)
    np.testing.assert_allclose(prior.covariance, [[0.25, 0.1], [0.1, 0.13]], atol=0.02)


def test_the_filter_learns_the_taste_it_does_not_see() -> None:
    """With hardly any noise as many items as there are dimensions tell everything."""
    env = ProtoActionVectorEnv(40, items=500, dim=4, clusters=8, reward_noise=0.01, lam=0.8, reward_bound=50.0)
    env.reset(seed=0)
    simulation = env.simulation
    policy = BeliefGreedy(simulation, clusters=False)
    rng = np.random.default_rng(0)
    for _ in range(8):
        policy.choose(rng)
        ids = rng.integers(500, size=40)
        _, reward, terminated, truncated, _ = env.step(simulation.catalogue.items[ids])
        valid = np.ones(40, dtype=np.bool_)
        policy.learn(ids, _Step(reward, terminated, truncated, valid))  # type: ignore[arg-type]
    wanted = simulation.response.wish(simulation.state.taste, simulation.state.satiation)
    best = (wanted @ simulation.catalogue.items.T).max(axis=1)
    chosen = np.einsum("bd,bd->b", wanted, simulation.catalogue.items[policy.choose(rng)])
    assert (best - chosen).max() < 0.05


class _Step:
    def __init__(self, reward: Any, terminated: Any, truncated: Any, valid: Any) -> None:
        self.reward, self.terminated, self.truncated, self.valid = reward, terminated, truncated, valid


def test_the_bound_of_a_drifting_taste_is_the_cut() -> None:
    env = ProtoActionVectorEnv(3, items=100, drift=0.1)
    env.reset(seed=0)
    (bound,) = ProtoActionVectorEnv.bounds().values()
    assert bound(env) == 20 * 5.0


def test_ladder_is_the_published_one() -> None:
    seed = derive(0, "ladder", family=SeedFamily.FINAL)
    config = EnvironmentConfig(id=ID, kwargs={"actions": "items", "obs_mode": "ids"})
    rows = {row.name: row for row in ladder(config, 64, seed)}
    published = {
        "popular 50": -0.22,
        "random": 0.07,
        "per-user bandit": 0.24,
        "Kalman filter, greedy": 1.48,
        "filters of all clusters, greedy": 2.32,
        "nearest to the taste": 3.10,
        "myopic oracle": 3.244,
        "two-step oracle": 3.252,
        "planning oracle": 3.257,
    }
    assert list(rows) == list(published)
    for name, mean in published.items():
        assert abs(rows[name].mean / 20 - mean) < 4 * rows[name].sem / 20, name


@pytest.mark.parametrize("name", ["myopic oracle", "filters of all clusters, greedy"])
def test_a_baseline_says_the_same_in_ids_and_in_vectors(name: str) -> None:
    returns = []
    for actions in ("items", "proto"):
        env = ProtoActionVectorEnv(8, items=300, dim=8, clusters=5, actions=actions)
        policy = env.baselines()[name](env)
        observation, _ = env.reset(seed=0)
        total = np.zeros(8)
        for _ in range(20):
            action = policy.act(observation, np.random.default_rng(0), explore=False, env_steps=0)
            observation, reward, terminated, truncated, _ = env.step(action.action)
            policy.observe(action, _Step(reward, terminated, truncated, np.ones(8, dtype=np.bool_)))
            total += reward
        returns.append(total)
    np.testing.assert_allclose(*returns)
