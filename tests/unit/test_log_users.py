"""LogUsers against a loop over users, its clicks, what it offers, its ladder and its bound."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from kit.log_users import random_users
from scipy.stats import chisquare

from actors.environments import EnvironmentConfig, make_vector_env
from actors.envs.log_users import FittedUsers, LogUsers, LogUsersModel, LogUsersVectorEnv
from actors.envs.log_users.baselines import TasteBandit
from actors.envs.log_users.bounds import best_different_items
from actors.envs.log_users.clicks import CalibratedClicks
from actors.envs.log_users.memory import Memory
from actors.envs.log_users.offers import draw_candidates
from actors.envs.log_users.users import UserSampler
from actors.ladder import Ladder
from actors.timestep import TimeStep
from replay_server.errors import ConfigError

ID = "headrace/LogUsers-v0"


def simulation_of(num_users: int, seed: int = 0, fitted: FittedUsers | None = None, **constants: Any) -> LogUsers:
    simulation = LogUsers(LogUsersModel(**constants), fitted or random_users(), num_users)
    simulation.generator = np.random.default_rng(seed)
    simulation.reset()
    return simulation


@pytest.fixture
def model(tmp_path: Path) -> str:
    random_users().save(tmp_path / "users.npz")
    return str(tmp_path / "users.npz")


def slow_probability(fitted: FittedUsers, user: int, item: int) -> float:
    """P(click) on something new, straight from the definition."""
    score = sum(float(a) * float(b) for a, b in zip(fitted.user_factors[user], fitted.item_factors[item], strict=True))
    bias, factors, generosity, quality = fitted.click
    logit = bias + factors * score + generosity * fitted.generosity[user] + quality * fitted.quality[item]
    return float(1.0 / (1.0 + np.exp(-logit)))


class Still:
    """A click model of one's own: everything is clicked with the same probability."""

    def __init__(self, fitted: FittedUsers) -> None:
        self._items = len(fitted.item_names)

    def of_pairs(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return np.ones(len(users), dtype=np.float32)

    def of_all(self, users: np.ndarray) -> np.ndarray:
        return np.ones((len(users), self._items), dtype=np.float32)


def test_step_follows_the_definition_user_by_user() -> None:
    simulation = simulation_of(8, seed=3, history_length=5)
    mirror = np.random.default_rng(0)
    mirror.bit_generator.state = simulation.generator.bit_generator.state
    rng = np.random.default_rng(1)
    shown: list[list[tuple[int, int]]] = [[] for _ in range(8)]
    clicks = 0
    for _ in range(30):
        action = rng.integers(20, size=8)  # few items, so that they repeat
        draws = mirror.random(8, dtype=np.float32)
        outcome = simulation.step(action)
        for user in range(8):
            item = int(action[user])
            known = item in [earlier for earlier, _ in shown[user]]
            probability = slow_probability(simulation.fitted, simulation.users[user], item)
            clicked = not known and draws[user] < probability
            assert outcome.reward[user] == float(clicked)
            shown[user].append((item, int(clicked)))
            different = len({earlier for earlier, _ in shown[user]})
            assert outcome.info["repeats"][user] == len(shown[user]) - different
            clicks += clicked
        assert not outcome.terminated.any() and not outcome.truncated.any()
        seen = simulation.observe()
        for user in range(8):
            last = ([(-1, 0)] * 5 + shown[user])[-5:]
            assert list(zip(seen["history"][user], seen["clicked"][user], strict=True)) == last
    assert clicks > 30


def test_an_item_seen_before_is_never_clicked() -> None:
    simulation = LogUsers(LogUsersModel(), random_users(), 50, Still(random_users()))
    simulation.reset()
    assert simulation.step(np.full(50, 7)).reward.all()
    assert simulation.step(np.full(50, 8)).reward.all()
    assert not simulation.step(np.full(50, 7)).reward.any()
    simulation.reset(np.arange(10))
    np.testing.assert_array_equal(simulation.step(np.full(50, 7)).reward, np.arange(50) < 10)


def test_both_ways_to_probabilities_are_the_definition() -> None:
    fitted = random_users()
    clicks = CalibratedClicks(fitted)
    users, items = np.array([3, 299, 3]), np.array([0, 49, 20])
    expected = [slow_probability(fitted, int(user), int(item)) for user, item in zip(users, items, strict=True)]
    np.testing.assert_allclose(clicks.of_pairs(users, items), expected, rtol=1e-5)
    np.testing.assert_allclose(clicks.of_all(users)[np.arange(3), items], expected, rtol=1e-5)
    assert clicks.of_pairs(users, items).dtype == clicks.of_all(users).dtype == np.float32


def test_clicks_come_as_often_as_they_should() -> None:
    simulation = simulation_of(20_000)
    simulation.users[:] = 5
    action = np.arange(20_000) % 50
    clicked = np.bincount(action, weights=simulation.step(action).reward, minlength=50)
    expected = 400 * np.array([slow_probability(simulation.fitted, 5, item) for item in range(50)])
    statistic = (np.square(clicked - expected) / (expected * (1 - expected / 400))).sum()  # chi-square of 50 degrees
    assert 25 < statistic < 86  # all but one in a thousand on either side


def test_users_come_with_equal_probability_from_the_population_asked_for() -> None:
    fitted = random_users(40)
    rng = np.random.default_rng(0)
    drawn = {which: UserSampler(fitted, which).draw(20_000, rng) for which in ("all", "fitted", "held_out")}
    assert chisquare(np.bincount(drawn["all"], minlength=40)).pvalue > 0.001
    assert set(drawn["held_out"]) == set(np.flatnonzero(fitted.held_out))
    assert set(drawn["fitted"]) == set(np.flatnonzero(~fitted.held_out))
    assert set(simulation_of(200, users="held_out", fitted=fitted).users) == set(drawn["held_out"])


def test_memory_equals_a_set_of_items() -> None:
    memory, rng = Memory(6, 37, 4), np.random.default_rng(0)
    known: list[set[int]] = [set() for _ in range(6)]
    for step in range(60):
        items = rng.integers(37, size=6)
        expected = [item in seen for item, seen in zip(items, known, strict=True)]
        np.testing.assert_array_equal(memory.knows(items), expected)
        memory.add(items, rng.random(6) < 0.5)
        for item, seen in zip(items, known, strict=True):
            seen.add(int(item))
        if step == 40:
            memory.forget(np.array([2, 5]))
            known[2], known[5] = set(), set()
            assert (memory.history[2] == -1).all() and not memory.clicked[5].any()
        unseen = memory.unseen()
        assert unseen.shape == (6, 37)
        for row, seen in zip(unseen, known, strict=True):
            assert set(np.flatnonzero(~row)) == seen
        several = rng.integers(37, size=(6, 3))
        np.testing.assert_array_equal(memory.knows(several), ~np.take_along_axis(unseen, several, axis=1))


@pytest.mark.parametrize(("items", "count"), [(50, 7), (50, 50), (12, 6), (1000, 3)])
def test_candidates_differ_and_are_equally_likely(items: int, count: int) -> None:
    drawn = draw_candidates(20_000, items, count, np.random.default_rng(0))
    assert drawn.shape == (20_000, count) and drawn.dtype == np.int32
    assert drawn.min() >= 0 and drawn.max() < items
    assert all(len(set(row)) == count for row in drawn[:2000].tolist())
    if count < items:
        assert chisquare(np.bincount(drawn.ravel(), minlength=items)).pvalue > 0.001
        together = np.bincount(drawn[(drawn == 0).any(axis=1)].ravel(), minlength=items)[1:]
        assert together.min() > 0 or items == 1000  # any two items can meet


def test_actions_are_places_among_the_candidates() -> None:
    simulation = LogUsers(LogUsersModel(candidates=6, show_mask=True), random_users(), 40, Still(random_users()))
    simulation.generator = np.random.default_rng(0)
    simulation.reset()
    assert simulation.action_space.n == 6  # type: ignore[attr-defined]
    shown: list[list[int]] = [[] for _ in range(40)]
    for step in range(30):
        seen = simulation.observe()
        action = np.full(40, step % 6)
        reward = simulation.step(action).reward
        for user in range(40):
            assert len(set(seen["candidates"][user])) == 6
            fresh = [item not in shown[user] for item in seen["candidates"][user]]
            np.testing.assert_array_equal(seen["action_mask"][user], fresh if any(fresh) else np.ones(6))
            item = int(seen["candidates"][user][step % 6])
            assert reward[user] == (item not in shown[user])
            shown[user].append(item)
        np.testing.assert_array_equal(simulation.memory.history[:, -1], [items[-1] for items in shown])
        assert (simulation.observe()["candidates"] != seen["candidates"]).any(axis=1).all()


def test_when_everything_is_known_everything_may_be_chosen() -> None:
    simulation = simulation_of(3, fitted=random_users(items=4), show_mask=True)
    for item in range(4):
        assert (simulation.observe()["action_mask"].sum(axis=1) == 4 - item).all()
        simulation.step(np.full(3, item))
    assert simulation.observe()["action_mask"].all()


def test_observations_show_the_user_as_asked_for() -> None:
    factors = simulation_of(30).observe()
    fitted, users = random_users(), simulation_of(30).users
    np.testing.assert_array_equal(factors["observation"][:, :-1], fitted.user_factors[users])
    np.testing.assert_array_equal(factors["observation"][:, -1], fitted.generosity[users])
    ids = simulation_of(30, obs_mode="ids").observe()
    np.testing.assert_array_equal(ids["user"][:, 0], users)
    assert set(ids) == {"user", "history", "clicked"}
    assert {array.dtype for array in ids.values()} == {np.dtype(np.int32), np.dtype(np.int8)}
    assert set(simulation_of(30, show_user=False).observe()) == {"history", "clicked"}


def test_embeddings_order_items_as_the_click_model_does() -> None:
    fitted = random_users()
    table = simulation_of(1).item_embeddings
    assert table.shape == (50, 7) and table.dtype == np.float32
    for part in (table[:, :-1], table[:, -1:]):
        np.testing.assert_allclose(np.sqrt(np.mean(part**2)), 1.0, rtol=1e-5)
    scores = fitted.user_factors @ table[:, :-1].T
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(fitted.user_factors @ fitted.item_factors.T))


def test_a_catalogue_is_the_most_rated_items(model: str) -> None:
    env = LogUsersVectorEnv(5, model=model, catalogue=12)
    whole = random_users()
    names = set(whole.item_names[np.argsort(-whole.ratings)[:12]])
    assert set(env.simulation.fitted.item_names) == names
    assert env.single_action_space.n == 12 and env.item_embeddings is not None and len(env.item_embeddings) == 12  # type: ignore[attr-defined]
    place = list(whole.item_names).index(env.simulation.fitted.item_names[3])
    likely = env.simulation.clicks.of_all(np.array([9]))[0, 3]
    assert likely == pytest.approx(slow_probability(whole, 9, place), rel=1e-5)


def play(env: Any, seed: int, steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    arrays = list(env.reset(seed=seed)[0].values())
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(rng.integers(6, size=env.num_envs))
        arrays += [*observation.values(), reward, terminated, truncated]
    return arrays


@pytest.mark.parametrize("constants", [{}, {"candidates": 6, "show_mask": True}, {"obs_mode": "ids"}])
def test_same_seed_same_trajectory(constants: dict[str, Any], model: str) -> None:
    runs = [play(LogUsersVectorEnv(3, 7, model=model, **constants), seed, 25) for seed in (5, 5, 6)]
    for one, two in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(runs[0], runs[2], strict=True))


def test_episodes_are_truncated_after_20_steps_and_never_terminate(model: str) -> None:
    env = gymnasium.make_vec(ID, num_envs=4, model=model)
    arrays = play(env, 0, 60)
    terminated, truncated = arrays[7::6], arrays[8::6]
    assert not np.any(terminated)
    np.testing.assert_array_equal([rows.all() for rows in truncated], [(step + 1) % 20 == 0 for step in range(60)])
    assert not np.any([rows.any() != rows.all() for rows in truncated])


def test_final_observations_belong_to_the_user_that_left(model: str) -> None:
    env = LogUsersVectorEnv(40, max_episode_steps=2, model=model)
    first, _ = env.reset(seed=0)
    env.step(np.full(40, 1))
    observation, _, _, truncated, info = env.step(np.full(40, 2))
    assert truncated.all()
    np.testing.assert_array_equal(info["final_obs"]["observation"], first["observation"])
    np.testing.assert_array_equal(info["final_obs"]["history"][:, -2:], np.tile([1, 2], (40, 1)))
    assert (observation["history"] == -1).all()
    assert (observation["observation"] != first["observation"]).any(axis=1).sum() > 35


def test_next_step_and_disabled_modes_reset_later(model: str) -> None:
    env = LogUsersVectorEnv(30, max_episode_steps=2, autoreset_mode="NextStep", model=model, candidates=5)
    env.reset(seed=0)
    action = np.zeros(30, dtype=np.int64)
    env.step(action)
    final, *_ = env.step(action)
    assert (final["history"][:, -2:] >= 0).all()
    begun, reward, _, truncated, _ = env.step(action)
    assert (begun["history"] == -1).all() and not reward.any() and not truncated.any()
    still = LogUsersVectorEnv(2, max_episode_steps=1, autoreset_mode="Disabled", model=model)
    still.reset(seed=0)
    still.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(RuntimeError, match="reset_mask"):
        still.step(np.zeros(2, dtype=np.int64))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("constants", [{}, {"obs_mode": "ids", "candidates": 5, "show_mask": True}])
def test_registered_and_checked(constants: dict[str, Any], model: str) -> None:
    env = gymnasium.make(ID, model=model, **constants)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(20)] == [False] * 19 + [True]


def test_a_click_model_of_ones_own(model: str) -> None:
    env = LogUsersVectorEnv(6, model=model, click_model=f"{__name__}:Still")
    env.reset(seed=0)
    assert env.step(np.arange(6))[1].all()


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, "needs a log of ratings, as in --environment.kwargs.log ratings.csv"),
        ({"model": "MODEL", "users": "new"}, "users is 'new'"),
        ({"model": "MODEL", "obs_mode": "pixels"}, "obs_mode is 'pixels'"),
        ({"model": "MODEL", "candidates": 51}, "candidates is 51, there are 50 items"),
        ({"model": "MODEL", "catalogue": 51}, "catalogue is 51, must lie between 1 and the 50"),
        ({"model": "MODEL", "catalogue": 1}, "catalogue is 1, must be at least 2"),
        ({"model": "MODEL", "history_length": 0}, "history_length is 0"),
        ({"model": "MODEL", "itmes": 5}, "do not fit headrace/LogUsers-v0"),
        ({"log": "ratings.csv", "fit": {"factors": 0}}, "factors is 0"),
        ({"model": "MODEL", "fit": {"factors": 4}}, "leave fit out"),
        ({"model": "MODEL", "click_model": "nowhere:Clicks"}, "environment.kwargs.click_model: no module nowhere"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(kwargs: dict[str, Any], said: str, model: str) -> None:
    arguments = {name: model if value == "MODEL" else value for name, value in kwargs.items()}
    with pytest.raises(ConfigError) as error:
        make_vector_env(EnvironmentConfig(id=ID, kwargs=arguments), 2)
    assert said in str(error.value) and "\n" not in str(error.value)


def brute_force(likely: np.ndarray, steps: int) -> float:
    """The best expected return over all orders of items that may repeat; a repeated item is worth nothing."""
    return max(float(likely[list(order)].sum()) for order in permutations(range(len(likely)), steps))


def test_the_bound_is_the_best_of_all_plans(tmp_path: Path) -> None:
    random_users(items=6).save(tmp_path / "small.npz")
    env = LogUsersVectorEnv(5, max_episode_steps=3, model=str(tmp_path / "small.npz"))
    env.reset(seed=0)
    likely = env.simulation.clicks.of_all(env.simulation.users)
    np.testing.assert_allclose(best_different_items(env), [brute_force(row, 3) for row in likely], rtol=1e-6)
    longer = LogUsersVectorEnv(5, max_episode_steps=9, model=str(tmp_path / "small.npz"))
    longer.reset(seed=0)  # the seventh item is one seen before
    np.testing.assert_allclose(best_different_items(longer), likely.sum(axis=1), rtol=1e-6)


def test_the_myopic_oracle_reaches_the_bound_where_everything_is_on_offer(model: str) -> None:
    config = EnvironmentConfig(id=ID, kwargs={"model": model})
    with Ladder(config, 2000, 11) as rungs:
        rows = {name: rungs.baseline(name) for name in rungs.baselines}
        bound = rungs.bound("best different items")
    oracle = rows["myopic oracle"]
    assert bound.bound and abs(oracle.mean - bound.mean) < 3 * oracle.sem
    means = [rows[name].mean for name in ("most popular", "random", "best list for everybody", "per-user bandit")]
    assert means == sorted(means) and means[-1] < oracle.mean
    assert rows["most popular"].mean < 1.0  # only the first showing can be clicked


def test_with_candidates_the_oracle_stays_below_the_bound(model: str) -> None:
    with Ladder(EnvironmentConfig(id=ID, kwargs={"model": model, "candidates": 5}), 500, 11) as rungs:
        means = [
            rungs.baseline("random").mean,
            rungs.baseline("myopic oracle").mean,
            rungs.bound("best different items").mean,
        ]
    assert means == sorted(means)


def test_the_bandit_learns_a_users_taste() -> None:
    simulation = simulation_of(300, fitted=random_users(300, 200))
    bandit, rng = TasteBandit(simulation), np.random.default_rng(0)
    fitted = simulation.fitted
    truth = np.column_stack([fitted.user_factors, fitted.generosity])[simulation.users]
    before = np.square(bandit._mean - truth).mean()
    none = np.zeros(300, dtype=np.bool_)
    for _ in range(100):
        action = bandit.act(None, rng, explore=False, env_steps=0)
        reward = simulation.step(action.action).reward
        bandit.observe(action, TimeStep(none, none, reward, none, none, ~none))
    assert np.square(bandit._mean - truth).mean() < 0.6 * before
    bandit.observe(action, TimeStep(none, none, reward, none, ~none, ~none))
    np.testing.assert_array_equal(bandit._mean, np.tile(bandit._prior[0], (300, 1)))
