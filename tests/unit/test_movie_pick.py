"""MoviePick's rules against a one-user loop, its determinism, its ladder."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import actors.envs  # noqa: F401  registers the ids
from actors.environments import EnvironmentConfig
from actors.envs.movie_pick import MoviePick, MoviePickEnv, MoviePickModel, MoviePickVectorEnv
from actors.envs.movie_pick.catalogue import draw_catalogue
from actors.envs.movie_pick.history import WatchHistory
from actors.envs.movie_pick.rewards import Rewards
from actors.envs.movie_pick.users import Users, UserSource
from actors.envs.users import UsersVectorEnv
from actors.ladder import ladder
from actors.seeds import SeedFamily, derive
from replay_server.errors import ConfigError

ID = "headrace/MoviePick10-v0"


def simulation_of(num_users: int, seed: int = 0, **constants: Any) -> MoviePick:
    simulation = MoviePick(MoviePickModel(**constants), num_users)
    simulation.generator = np.random.default_rng(seed)
    simulation.reset()
    return simulation


def slow_probabilities(simulation: MoviePick, user: int, film: int, watched: list[int]) -> tuple[float, float]:
    """P(click) and P(watched to the end | click), straight from the definition."""
    rec = watched[-5:].count(film)
    click = float(simulation.users.click_logit[user, film]) - 0.25 * rec
    complete = float(simulation.users.complete_logit[user, film]) - 0.1 * rec
    return 1 / (1 + np.exp(-click)), 1 / (1 + np.exp(-complete))


def test_step_follows_the_definition_user_by_user() -> None:
    simulation = simulation_of(8, seed=3)
    mirror = np.random.default_rng(0)
    mirror.bit_generator.state = simulation.generator.bit_generator.state
    rng = np.random.default_rng(1)
    watched: list[list[int]] = [[] for _ in range(8)]
    for _ in range(120):
        action = rng.integers(3, size=8)  # few films, so that satiation matters
        draws = mirror.random((2, 8), dtype=np.float32)
        reward = simulation.step(action).reward
        for user in range(8):
            click, complete = slow_probabilities(simulation, user, int(action[user]), watched[user])
            clicked = draws[0, user] < click
            expected = (10.0 if draws[1, user] < complete else 1.0) if clicked else -0.1
            assert reward[user] == pytest.approx(expected)
            if clicked:
                watched[user].append(int(action[user]))
    seen = simulation.observe()
    for user in range(8):
        films = simulation.catalogue.films[watched[user][-5:]].reshape(-1)
        np.testing.assert_array_equal(seen[user, :20], simulation.users.embedding[user])
        np.testing.assert_array_equal(seen[user, 20:], films)


def test_expected_rewards_equal_the_mean_of_many_draws() -> None:
    users = 40_000
    simulation = simulation_of(users, population=1)
    simulation.history.films[:] = [10, 2, 2, 4, 2]
    action = np.full(users, 2)
    expected = simulation.expected_rewards()[0, 2]
    unsated = simulation.expected_rewards_unwatched()[0, 2]
    rewards = simulation.step(action).reward
    error = rewards.std() / np.sqrt(users)
    assert abs(rewards.mean() - expected) < 4 * error
    assert unsated - expected > 20 * error
    click, complete = slow_probabilities(simulation, 0, 2, [2, 2, 4, 2])
    assert expected == pytest.approx(click * (10 * complete + 1 - complete) - 0.1 * (1 - click), rel=1e-5)


def test_user_and_film_draws_have_the_stated_distribution() -> None:
    simulation = simulation_of(4000)
    films, prototypes = simulation.catalogue.films, simulation.catalogue.prototypes
    np.testing.assert_allclose(np.linalg.norm(films, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1.0)
    assert (films @ prototypes.T).max(axis=1).min() > 0.6
    affinity = (simulation.users.click_logit - simulation.catalogue.popularity + 0.6) / 2.2
    quality_side = (simulation.users.complete_logit - simulation.catalogue.quality + 0.6) / 2.0
    np.testing.assert_allclose(affinity, quality_side, atol=1e-5)  # both logits see the same taste
    assert np.abs(affinity).max() <= 1.0 + 1e-5


def test_the_shown_user_vector_is_the_taste_with_noise() -> None:
    simulation = simulation_of(4000, films=40)  # more films than dimensions, so that tastes follow from affinities
    films = simulation.catalogue.films.astype(float)
    assert np.linalg.matrix_rank(films) == films.shape[1]
    affinity = (simulation.users.click_logit - simulation.catalogue.popularity + 0.6) / 2.2
    tastes = np.linalg.lstsq(films, affinity.T.astype(float), rcond=None)[0]
    blur = simulation.users.embedding - (tastes.T @ simulation.catalogue.projection)
    assert blur.std() == pytest.approx(0.05, rel=0.05)


def test_zeros_stand_before_the_first_watched_films() -> None:
    simulation = simulation_of(1)
    assert not simulation.observe()[0, 20:].any()
    simulation.history.films[0, -1] = 7
    seen = simulation.observe()[0, 20:].reshape(5, 16)
    assert not seen[:4].any()
    np.testing.assert_array_equal(seen[4], simulation.catalogue.films[7])


def test_films_are_shared_and_users_are_not() -> None:
    first, second = simulation_of(2, seed=1), simulation_of(2, seed=2)
    np.testing.assert_array_equal(first.catalogue.films, second.catalogue.films)
    assert (first.users.embedding != second.users.embedding).all()
    other = simulation_of(2, seed=1, catalogue_seed=1)
    assert (other.catalogue.films != first.catalogue.films).any()


def test_every_reset_brings_a_new_user() -> None:
    env = MoviePickEnv()
    first, _ = env.reset(seed=4)
    second, _ = env.reset()
    again, _ = env.reset(seed=4)
    assert (first[:20] != second[:20]).all()
    np.testing.assert_array_equal(first, again)


def play(env: Any, seed: int, steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    arrays = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(rng.integers(10, size=env.num_envs))
        arrays += [observation, reward, terminated, truncated]
    return arrays


@pytest.mark.parametrize("obs_mode", ["embeddings", "ids"])
def test_same_seed_same_trajectory(obs_mode: str) -> None:
    runs = [play(MoviePickVectorEnv(3, 10, obs_mode=obs_mode), seed, 25) for seed in (5, 5, 6)]
    for one, two in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(runs[0], runs[2], strict=True))


def test_vector_env_truncates_after_100_steps_and_never_terminates() -> None:
    env = gymnasium.make_vec(ID, num_envs=2)
    arrays = play(env, 0, 100)
    truncated = arrays[4::4]
    assert not np.any(arrays[3::4])
    assert np.all(truncated[99]) and not np.any(truncated[:99])


def test_same_step_final_observation_belongs_to_the_old_user() -> None:
    env = MoviePickVectorEnv(3, max_episode_steps=2)
    first, _ = env.reset(seed=0)
    env.step(np.zeros(3, dtype=np.int64))
    observation, _, _, truncated, info = env.step(np.zeros(3, dtype=np.int64))
    assert truncated.all()
    np.testing.assert_array_equal(info["final_obs"][:, :20], first[:, :20])
    assert (observation[:, :20] != first[:, :20]).all()
    assert not observation[:, 20:].any()


def test_next_step_mode_resets_one_step_later() -> None:
    env = MoviePickVectorEnv(50, max_episode_steps=2, autoreset_mode="NextStep")
    first, _ = env.reset(seed=0)
    action = np.zeros(50, dtype=np.int64)
    env.step(action)
    final, _, _, truncated, _ = env.step(action)
    assert truncated.all()
    np.testing.assert_array_equal(final[:, :20], first[:, :20])
    begin, reward, _, truncated, _ = env.step(action)
    assert not truncated.any() and not reward.any() and not begin[:, 20:].any()
    assert (begin[:, :20] != first[:, :20]).all()
    assert env.step(action)[1].any()


def test_disabled_mode_refuses_to_step_beyond_an_end() -> None:
    env = MoviePickVectorEnv(2, max_episode_steps=1, autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(np.zeros(2, dtype=np.int64))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(RuntimeError, match="reset_mask"):
        env.step(np.zeros(2, dtype=np.int64))
    env.reset(options={"reset_mask": np.array([False, True])})
    env.step(np.zeros(2, dtype=np.int64))


@pytest.mark.filterwarnings("ignore:.*A Box observation space:UserWarning")
def test_registered_and_checked() -> None:
    env = gymnasium.make(ID)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    truncated = [env.step(0)[3] for _ in range(100)]
    assert truncated == [False] * 99 + [True]
    assert env.observation_space.shape == (100,) and env.action_space.n == 10  # type: ignore[union-attr, attr-defined]


def test_ids_name_the_user_and_the_films() -> None:
    env = MoviePickVectorEnv(50, obs_mode="ids", population=7)
    play(env, 0, 30)
    seen = env.simulation.observe()
    assert seen.dtype == np.int32 and seen.shape == (50, 6)
    assert set(seen[:, 0]) == set(range(7))
    np.testing.assert_array_equal(seen[:, 1:], env.simulation.history.films)
    assert all(row in env.single_observation_space for row in seen)
    twins = np.flatnonzero(seen[:, 0] == seen[0, 0])
    assert (env.simulation.users.embedding[twins] == env.simulation.users.embedding[0]).all()
    elsewhere = MoviePickVectorEnv(50, obs_mode="ids", population=7)
    elsewhere.reset(seed=8)
    same_user = np.flatnonzero(elsewhere.simulation.users.ids == seen[0, 0])[0]
    np.testing.assert_array_equal(
        elsewhere.simulation.users.click_logit[same_user], env.simulation.users.click_logit[0]
    )


class EverySecondFilm:
    """Users click films they have not watched and never finish one: ten lines replace a part."""

    def probabilities(self, click_logit: Any, complete_logit: Any, watched: Any) -> Any:
        return (watched == 0).astype(np.float32), np.zeros_like(complete_logit)


def test_a_response_of_ones_own_is_an_object_or_a_path() -> None:
    for given in (EverySecondFilm(), f"{__name__}:EverySecondFilm"):
        env = MoviePickVectorEnv(4, response=given)
        env.reset(seed=0)
        films = [2, 2, 3, 2, 4, 5, 6, 7, 2]  # the first is forgotten when five others have been watched
        rewards = [env.step(np.full(4, film))[1][0] for film in films]
        np.testing.assert_allclose(rewards, [1, -0.1, 1, -0.1, 1, 1, 1, 1, 1], rtol=1e-6)
    assert MoviePickEnv(response=EverySecondFilm()).simulation.expected_rewards()[0, 0] == 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("response", "message"),
    [("nowhere:Response", "no module nowhere"), (f"{__name__}:play", "arguments"), ("builtins:object", "no method")],
)
def test_a_wrong_response_is_refused(response: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MoviePickVectorEnv(2, response=response)


class Twins:
    """Everybody is the same person."""

    def __init__(self, model: MoviePickModel) -> None:
        self._source = UserSource(model, draw_catalogue(model))
        self._person = self._source.draw(1, np.random.default_rng(3))

    def draw(self, count: int, rng: np.random.Generator) -> Users:
        return self._person.take(np.zeros(count, dtype=np.int64))


def test_films_users_and_rewards_can_be_replaced() -> None:
    model = MoviePickModel()
    other = draw_catalogue(MoviePickModel(catalogue_seed=1))
    simulation = MoviePick(model, 5, catalogue=other, sampler=Twins(model), rewards=Rewards(0.0, 1.0, 1.0))
    simulation.reset()
    np.testing.assert_array_equal(simulation.item_embeddings, other.films)
    assert (simulation.users.embedding == simulation.users.embedding[0]).all()
    assert set(np.concatenate([simulation.step(np.arange(5)).reward for _ in range(20)])) == {0.0, 1.0}
    env = UsersVectorEnv(simulation, max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(np.arange(5))[3].all() for _ in range(4)] == [False, False, True, False]


def test_history_is_that_of_a_list_a_user() -> None:
    history, rng = WatchHistory(4, 3, none=6), np.random.default_rng(0)
    watched: list[list[int]] = [[] for _ in range(4)]
    for _ in range(60):
        rows = np.flatnonzero(rng.random(4) < 0.6)
        films = rng.integers(6, size=len(rows))
        history.add(rows, films)
        for row, film in zip(rows, films, strict=True):
            watched[row].append(int(film))
        if rng.random() < 0.1:
            history.forget(np.array([1]))
            watched[1] = []
        for user in range(4):
            last = watched[user][-3:]
            assert history.films[user].tolist() == [6] * (3 - len(last)) + last
            assert history.counts()[user].tolist() == [last.count(film) for film in range(6)]
        film = rng.integers(6, size=4)
        assert history.count(film).tolist() == [watched[user][-3:].count(film[user]) for user in range(4)]


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"obs_mode": "pixels"}, "obs_mode"),
        ({"films": 0}, "films"),
        ({"genres": 1}, "genres"),
        ({"population": 0}, "population"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
    ],
)
def test_wrong_constants_are_refused(constants: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoviePickVectorEnv(2, **constants)


def test_ladder_is_the_published_one() -> None:
    seed = derive(0, "ladder", family=SeedFamily.FINAL)
    rows = {row.name: row for row in ladder(EnvironmentConfig(id=ID), 2048, seed)}
    published = {
        "random": 186.3,
        "most popular": 101.5,
        "round-robin popular": 202.3,
        "per-user bandit": 231.8,
        "affinity without satiation": 264.1,
        "myopic oracle": 353.9,
    }
    assert list(rows) == list(published)
    for name, mean in published.items():
        assert rows[name].episodes == 2048
        assert 0.5 < rows[name].sem < 3.0
        assert abs(rows[name].mean - mean) < 3 * rows[name].sem, name
