"""MoviePick as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.movie_pick.baselines import BASELINES
from actors.envs.movie_pick.bounds import BOUNDS
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.response import Response, make_response
from actors.envs.movie_pick.simulation import MoviePick
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv


class MoviePickEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        response: what users do, a Response or `package.module:Class` of one; default satiation as the constants say.
        constants: fields of MoviePickModel.
    """

    def __init__(
        self, render_mode: str | None = None, response: str | Response | None = None, **constants: Any
    ) -> None:
        super().__init__(_simulation(1, response, constants), render_mode)


class MoviePickVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        response: see MoviePickEnv.
        constants: fields of MoviePickModel.
    """

    simulation: MoviePick
    _baselines = BASELINES
    _bounds = BOUNDS

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 100,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        response: str | Response | None = None,
        **constants: Any,
    ) -> None:
        simulation = _simulation(num_envs, response, constants)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )


def _simulation(num_users: int, response: str | Response | None, constants: Mapping[str, Any]) -> MoviePick:
    made = None if response is None else make_response(response)
    return MoviePick(MoviePickModel(**constants), num_users, response=made)
