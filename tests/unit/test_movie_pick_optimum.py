"""The exact optimum of MoviePick against a walk through everything that can happen."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from actors.environments import EnvironmentConfig
from actors.envs.movie_pick import MoviePick, MoviePickModel, MoviePickVectorEnv
from actors.envs.movie_pick.optimum import optimal_returns
from actors.ladder import Ladder
from replay_server.errors import ConfigError


def simulation_of(num_users: int, seed: int = 0, **constants: Any) -> MoviePick:
    simulation = MoviePick(MoviePickModel(**constants), num_users)
    simulation.generator = np.random.default_rng(seed)
    simulation.reset()
    return simulation


def definition(simulation: MoviePick, user: int, film: int, rec: int) -> tuple[float, float]:
    """P(click) and P(watched to the end | click) of a film remembered `rec` times."""
    model, users = simulation.model, simulation.users
    click = 1 / (1 + np.exp(model.click_satiation * rec - float(users.click_logit[user, film])))
    return click, 1 / (1 + np.exp(model.complete_satiation * rec - float(users.complete_logit[user, film])))


def walked(simulation: MoviePick, user: int, horizon: int, respond: Any = definition) -> float:
    """The best expected return, by trying every film after every history."""
    model = simulation.model

    @cache
    def best(watched: tuple[int, ...], left: int) -> float:
        return max(shown(film, watched, left) for film in range(model.films)) if left else 0.0

    def shown(film: int, watched: tuple[int, ...], left: int) -> float:
        click, complete = respond(simulation, user, film, watched.count(film))
        moved = (*watched, film)[-model.history_length :]
        paid = complete * model.complete_reward + (1 - complete) * model.click_reward
        clicked = click * (paid + best(moved, left - 1))
        return clicked + (1 - click) * (model.ignore_reward + best(watched, left - 1))

    return float(best((), horizon))


@pytest.mark.parametrize(
    ("constants", "horizon"),
    [
        ({"films": 2, "history_length": 2}, 7),
        ({"films": 3, "history_length": 2, "click_satiation": 2.0}, 9),
        ({"films": 5, "history_length": 3, "click_satiation": 0.6, "complete_satiation": 0.8}, 12),
        ({"films": 5, "history_length": 2, "click_reward": -4.0, "complete_satiation": 1.5}, 8),  # clicks that harm
        ({"films": 1, "history_length": 1}, 3),
    ],
)
def test_it_is_what_a_walk_through_all_histories_finds(constants: dict[str, Any], horizon: int) -> None:
    simulation = simulation_of(6, **constants)
    expected = [walked(simulation, user, horizon) for user in range(6)]
    np.testing.assert_allclose(optimal_returns(simulation, horizon), expected, rtol=1e-9)


class Moody:
    """A film tires at once and pleases most when watched three times: more is not always less."""

    MOODS = np.array([0.4, 0.05, 0.05, 0.95, 0.95])

    def probabilities(self, click_logit: Any, complete_logit: Any, watched: Any) -> Any:
        mood = self.MOODS[watched.astype(int)] + 0.04 * np.tanh(click_logit)
        return mood, np.full_like(mood, 0.5) + 0.01 * np.tanh(complete_logit)


def moody(simulation: MoviePick, user: int, film: int, rec: int) -> tuple[float, float]:
    """The same of one film."""
    click = Moody.MOODS[rec] + 0.04 * np.tanh(float(simulation.users.click_logit[user, film]))
    return click, 0.5 + 0.01 * np.tanh(float(simulation.users.complete_logit[user, film]))


def test_responses_that_do_not_only_tire_are_solved_as_well() -> None:
    simulation = MoviePick(MoviePickModel(films=4, history_length=4), 3, response=Moody())
    expected = [walked(simulation, user, 14, moody) for user in range(3)]
    np.testing.assert_allclose(optimal_returns(simulation, 14), expected, rtol=1e-9)


def test_no_policy_measured_is_better() -> None:
    with Ladder(EnvironmentConfig(id="headrace/MoviePick10-v0"), 64, seed=9) as rungs:
        oracle, bound = rungs.baseline("myopic oracle"), rungs.bound("exact optimum")
    assert bound.episodes == 64 and bound.bound
    assert oracle.mean < bound.mean < 1.15 * oracle.mean


def test_what_cannot_be_solved_is_said_in_a_line() -> None:
    with pytest.raises(ConfigError, match="histories of"):
        optimal_returns(simulation_of(1, films=40, history_length=30), 5)
    env = MoviePickVectorEnv(2, max_episode_steps=None)
    with pytest.raises(ConfigError, match="max_episode_steps"):
        env.bounds()["exact optimum"](env)
