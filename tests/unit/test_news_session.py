"""NewsSession's rules against a one-user loop, its chances, its clocks, its ends."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import actors.envs  # noqa: F401  registers the ids
from actors.environments import EnvironmentConfig, make_vector_env
from actors.envs.news_session import NewsSession, NewsSessionEnv, NewsSessionModel, NewsSessionVectorEnv
from actors.envs.news_session.articles import draw_pool
from actors.envs.news_session.clicks import place_weights
from actors.vector_steps import VectorSteps
from replay_server.errors import ConfigError, EnvironmentFault

ID = "headrace/NewsSession-v0"


def simulation_of(num_users: int, seed: int = 0, **constants: Any) -> NewsSession:
    simulation = NewsSession(NewsSessionModel(**{"articles": 500, **constants}), num_users)
    simulation.generator = np.random.default_rng(seed)
    simulation.reset()
    return simulation


class SlowUser:
    """One user, straight from the formulas."""

    def __init__(self, churns_after: float) -> None:
        self.churns_after = churns_after
        self.clock, self.satisfaction, self.activeness = 0.0, 0.5, 0.5
        self.clicks, self.sessions, self.requests = 0, 1, 0

    def request(
        self, shown: list[int], logits: list[float], worth: list[float], draws: list[float]
    ) -> dict[str, float]:
        clicked = []
        for place, article in enumerate(shown):
            chance = 1 / (1 + math.exp(-logits[place])) / math.log2(place + 2)
            clicked.append(article not in shown[:place] and draws[place] < chance)
        counts = [w for w, c in zip(worth, clicked, strict=True) if c]
        self.satisfaction = 0.9 * self.satisfaction + 0.1 * (sum(counts) / len(counts) if counts else 0.25)
        goes_on = draws[5] < (0.75 if counts else 0.5)
        mean_gap = 24.0 / math.exp(3 * (self.satisfaction - 0.5))
        hours = 1 / 60 if goes_on else -math.log(1 - draws[6]) * mean_gap
        self.clock += hours
        self.activeness = min(1.0, self.activeness * math.exp(-1.2e-5 * 3600 * hours) + 0.32)
        self.clicks, self.requests = self.clicks + len(counts), self.requests + 1
        self.sessions += not goes_on and self.clock < 720 and hours <= self.churns_after
        return {
            "r_click": len(counts),
            "r_active": self.activeness,
            "dt_hours": hours,
            "clicks": self.clicks,
            "sessions": self.sessions,
            "click_through_rate": self.clicks / self.requests / 5,
        }


@pytest.mark.parametrize("churn", [False, True])
def test_step_follows_the_formulas_user_by_user(churn: bool) -> None:
    simulation = simulation_of(6, seed=3, churn=churn, churn_days=2.0)
    mirror = np.random.default_rng(0)
    mirror.bit_generator.state = simulation.generator.bit_generator.state
    users = [SlowUser(48.0 if churn else math.inf) for _ in range(6)]
    rng = np.random.default_rng(1)
    truncations = terminations = 0
    for _ in range(120):
        pool, library = simulation.pool, simulation.library
        action = rng.integers(9, size=(6, 5))  # of few, so that articles are repeated
        draws = mirror.random((7, 6), dtype=np.float32)
        following = draw_pool(simulation.model, library, mirror)
        outcome = simulation.step(action)
        np.testing.assert_array_equal(simulation.pool.ids, following.ids)
        for row, user in enumerate(users):
            shown = action[row].tolist()
            ids = pool.ids[shown]
            bait = library.clickbait[ids]
            logits = (
                -2.2 + 2.5 * library.vectors[ids] @ simulation.users.taste[row] + 1.8 * bait - 0.05 * pool.age[shown]
            )
            worth = 2 * library.quality[ids] * (1 - bait)
            expected = user.request(shown, logits.tolist(), worth.tolist(), draws[:, row].tolist())
            for name, value in expected.items():
                assert outcome.info[name][row] == pytest.approx(value, rel=2e-4), name
            assert outcome.reward[row] == pytest.approx(expected["r_click"] + 0.05 * expected["r_active"], rel=1e-5)
            gone = churn and expected["dt_hours"] > 48
            assert outcome.terminated[row] == gone
            assert outcome.truncated[row] == (user.clock >= 720 and not gone)
            truncations, terminations = truncations + outcome.truncated[row], terminations + gone
            assert simulation.satisfaction.values[row] == pytest.approx(user.satisfaction, rel=1e-4)
    assert truncations > 0
    assert (terminations > 0) == churn


def test_clicks_have_their_chances_and_none_its_own() -> None:
    users = 60_000
    simulation = simulation_of(users, population=1)
    action = np.tile([7, 3, 7, 30, 12], (users, 1))  # 7 twice
    chance = simulation.click_probabilities()[0, [7, 3, 7, 30, 12]] * place_weights(5)
    chance[2] = 0.0
    simulation.step(action)
    observed = simulation.response.sum(axis=0)
    expected = users * chance
    spread = np.delete((observed - expected) ** 2 / (expected * (1 - chance) + 1e-9), 2)
    assert spread.sum() < 18.5  # chi-square of 4 degrees, 0.1 %
    assert observed[2] == 0
    none = np.prod(1 - chance)
    assert abs((simulation.response.sum(axis=1) == 0).mean() - none) < 4 * np.sqrt(none * (1 - none) / users)
    both = (simulation.response[:, 0] & simulation.response[:, 1]).mean()  # clicks are independent
    assert abs(both - chance[0] * chance[1]) < 4 * np.sqrt(both / users)


@pytest.mark.parametrize("satisfaction", [0.2, 0.9])
def test_content_users_come_back_sooner(satisfaction: float) -> None:
    users = 40_000
    simulation = simulation_of(users, satisfaction_start=satisfaction, satisfaction_memory=1.0)
    outcome = simulation.step(np.tile(np.arange(5), (users, 1)))
    hours, clicked = outcome.info["dt_hours"], outcome.info["r_click"] > 0
    on = hours == np.float32(1 / 60)
    for rows, stay in ((clicked, 0.75), (~clicked, 0.5)):
        assert abs(on[rows].mean() - stay) < 4 * 0.5 / np.sqrt(rows.sum())
    gaps, mean = hours[~on], 24.0 / math.exp(3 * (satisfaction - 0.5))
    assert abs(gaps.mean() - mean) < 4 * mean / np.sqrt(len(gaps))
    assert abs((gaps > mean).mean() - math.exp(-1)) < 0.02  # exponential, not merely of that mean


def test_satisfaction_moves_towards_the_worth_of_what_was_clicked() -> None:
    simulation = simulation_of(2000, click_bias=50.0, satisfaction_start=0.6)  # clicks everything at the top
    for articles, direction in ((np.argsort(-simulation.pool.worth), 1), (np.argsort(simulation.pool.worth), -1)):
        before = simulation.satisfaction.values.copy()
        simulation.step(np.tile(articles[:5], (2000, 1)))
        assert (direction * (simulation.satisfaction.values - before) > 0).all()


def test_activeness_of_a_daily_visitor_stays() -> None:
    simulation = simulation_of(1)
    simulation.activeness.come_back(np.array([24.0], dtype=np.float32))
    assert simulation.activeness.values[0] == pytest.approx(0.5 * math.exp(-1.2e-5 * 86400) + 0.32)
    assert simulation.activeness.values[0] == pytest.approx(0.5, abs=0.01)
    for _ in range(5):
        simulation.activeness.come_back(np.zeros(1, dtype=np.float32))
    assert simulation.activeness.values[0] == 1.0


def test_articles_have_the_stated_distribution() -> None:
    library = simulation_of(1, articles=20_000).library
    np.testing.assert_allclose(np.linalg.norm(library.vectors, axis=1), 1.0, rtol=1e-5)
    assert library.quality.mean() == pytest.approx(0.5, abs=0.01) and library.quality.max() < 1.0
    assert library.clickbait.mean() == pytest.approx(1 / 3, abs=0.01)
    assert (library.clickbait < 0.25).mean() == pytest.approx(0.5, abs=0.02)  # a square of a uniform number
    facts = np.column_stack([library.vectors, library.quality, library.clickbait, np.ones(20_000)])
    rest = library.properties - facts @ np.linalg.lstsq(facts, library.properties, rcond=None)[0]
    assert rest.std() == pytest.approx(0.05, rel=0.05)  # a linear map and noise


def test_every_tick_has_a_pool_of_its_own_without_repeats() -> None:
    simulation = simulation_of(2, articles=60)
    ages = []
    pools = set()
    for _ in range(300):
        assert len(set(simulation.pool.ids.tolist())) == 40
        pools.add(tuple(sorted(simulation.pool.ids.tolist())))
        ages.append(simulation.pool.age)
        simulation.step(np.zeros((2, 5), dtype=np.int64))
    assert len(pools) == 300
    assert np.mean(ages) == pytest.approx(6.0, rel=0.05) and np.std(ages) == pytest.approx(6.0, rel=0.08)


def play(env: Any, seed: int, steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    arrays = list(env.reset(seed=seed)[0].values())
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(rng.integers(40, size=(env.num_envs, 5)))
        arrays += [*observation.values(), reward, terminated, truncated]
    return arrays


@pytest.mark.parametrize("obs_mode", ["features", "ids"])
def test_same_seed_same_trajectory(obs_mode: str) -> None:
    runs = [play(NewsSessionVectorEnv(3, obs_mode=obs_mode, days=3.0, churn=True), seed, 25) for seed in (5, 5, 6)]
    for one, two in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(runs[0], runs[2], strict=True))


def test_final_observation_belongs_to_the_user_that_left() -> None:
    env = NewsSessionVectorEnv(8, days=1.0)
    observation, _ = env.reset(seed=0)
    ends = 0
    for _ in range(60):
        user = observation["user"]
        observation, _, _, truncated, info = env.step(np.tile(np.arange(5), (8, 1)))
        np.testing.assert_array_equal(info.get("_final_obs", np.zeros(8, bool)), truncated)
        if truncated.any():
            final = info["final_obs"]
            np.testing.assert_array_equal(final["user"][truncated], user[truncated])
            assert (observation["user"][truncated] != user[truncated]).all()
            assert final["observation"][truncated, 104].min() > 0.0  # hours have passed since his last request
            assert not observation["observation"][truncated, :100].any()  # the next has clicked nothing
            assert not observation["response"][truncated].any()
        np.testing.assert_array_equal(observation["user"][~truncated], user[~truncated])
        ends += int(truncated.sum())
    assert ends > 8


def test_figures_of_an_episode_are_told_at_its_end() -> None:
    env = NewsSessionVectorEnv(4, days=2.0)
    env.reset(seed=1)
    assert env.episode_metrics == ("clicks", "sessions", "click_through_rate")
    clicks, requests = np.zeros(4), np.zeros(4)
    for _ in range(60):
        _, _, _, truncated, info = env.step(np.tile(np.arange(5), (4, 1)))
        clicks, requests = clicks + info["r_click"], requests + 1
        np.testing.assert_array_equal(info["clicks"], clicks)
        np.testing.assert_allclose(info["click_through_rate"], clicks / requests / 5, rtol=1e-6)
        clicks[truncated] = requests[truncated] = 0


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_modes_of_autoreset(mode: str) -> None:
    env = NewsSessionVectorEnv(5, autoreset_mode=mode, max_episode_steps=2)
    first, _ = env.reset(seed=0)
    action = np.tile(np.arange(5), (5, 1))
    env.step(action)
    seen, _, _, truncated, _ = env.step(action)
    assert truncated.all()
    if mode == "Disabled":
        with pytest.raises(RuntimeError, match="reset_mask"):
            env.step(action)
        seen, _ = env.reset(options={"reset_mask": truncated})
    elif mode == "NextStep":
        np.testing.assert_array_equal(seen["user"], first["user"])
        seen, reward, *_ = env.step(action)
        assert not reward.any()
    assert (seen["user"] != first["user"]).all()
    assert not seen["observation"][:, :100].any()


@pytest.mark.filterwarnings("ignore:.*A Box observation space:UserWarning")
@pytest.mark.parametrize("obs_mode", ["features", "ids"])
def test_registered_and_checked(obs_mode: str) -> None:
    env = gymnasium.make(ID, obs_mode=obs_mode)
    check_env(env.unwrapped, skip_render_check=True)
    vector = gymnasium.make_vec(ID, num_envs=3, obs_mode=obs_mode)
    observation, _ = vector.reset(seed=0)
    assert observation in vector.observation_space
    vector.action_space.seed(0)
    assert vector.step(vector.action_space.sample())[0] in vector.observation_space


class TopOnly:
    """A user who clicks what is at the top, and nothing else."""

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        chance = np.zeros_like(logits)
        chance[0] = 1.0
        return chance


def test_users_can_be_given_another_click_model() -> None:
    for given in (TopOnly(), f"{__name__}:TopOnly"):
        env = NewsSessionVectorEnv(4, click_model=given)
        env.reset(seed=0)
        info = env.step(np.tile(np.arange(5), (4, 1)))[4]
        assert info["r_click"].tolist() == [1.0] * 4
    assert NewsSessionEnv(click_model=TopOnly()).reset(seed=0)
    with pytest.raises(ConfigError, match="click_model"):
        NewsSessionVectorEnv(4, click_model="nowhere:Clicks")


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"obs_mode": "pixels"}, "obs_mode"),
        ({"slots": 0}, "slots"),
        ({"slots": 41}, "must rise"),
        ({"articles": 39}, "must rise"),
        ({"genres": 1}, "genres"),
        ({"days": 0.0}, "days"),
        ({"population": 0}, "population"),
        ({"article_size": 5}, "article_size"),
        ({"context_size": 7}, "context_size"),
        ({"user_size": 99}, "user_size"),
        ({"user_size": 185}, "user_size"),
        ({"user_news_size": 96}, "user_news_size"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
    ],
)
def test_wrong_constants_are_refused(constants: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NewsSessionVectorEnv(2, **constants)


@pytest.mark.parametrize("wrappers", [[], ["gymnasium.wrappers:PassiveEnvChecker"]], ids=["at once", "one by one"])
def test_the_time_that_passed_reaches_records(wrappers: list[str]) -> None:
    config = EnvironmentConfig(id=ID, kwargs={"days": 2.0, "articles": 500}, wrappers=wrappers)
    steps = VectorSteps(make_vector_env(config, 3))
    steps.reset(0)
    passed, ends = np.zeros(3), 0
    for _ in range(60):
        timestep = steps.step(np.tile(np.arange(5), (3, 1)))
        assert timestep.hours is not None and timestep.hours.dtype == np.float32
        passed += timestep.hours
        np.testing.assert_array_equal(timestep.truncated, passed >= 48)
        passed[timestep.truncated] = 0.0
        ends += int(timestep.truncated.sum())
    assert ends > 3


class Backwards(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Tells that time runs backwards."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "dt_hours": -1.0}


def test_time_that_runs_backwards_is_refused() -> None:
    steps = VectorSteps(make_vector_env(EnvironmentConfig(id=ID, wrappers=[f"{__name__}:Backwards"]), 2))
    steps.reset(0)
    with pytest.raises(EnvironmentFault, match="dt_hours"):
        steps.step(np.tile(np.arange(5), (2, 1)))
