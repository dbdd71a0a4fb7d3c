"""MoviePick as Gymnasium environments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.movie_pick.baselines import BASELINES
from actors.envs.movie_pick.bounds import BOUNDS
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.response import Response
from actors.envs.movie_pick.simulation import MoviePick
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import make_part


def make_simulation(num_users: int, *, response: Response | str | None = None, **constants: Any) -> MoviePick:
    """B users.

    Args:
        num_users: B.
        response: what users do, or package.module:Class of it; default satiation as the constants say.
        constants: fields of MoviePickModel.

    Raises:
        ConfigError: no such class, or it is none of a response.
    """
    made = None if response is None else make_part(response, "environment.kwargs.response", ["probabilities"])
    return MoviePick(MoviePickModel(**constants), num_users, response=made)


class MoviePickEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(make_simulation(1, **settings), render_mode)


class MoviePickVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
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
        **settings: Any,
    ) -> None:
        simulation = make_simulation(num_envs, **settings)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
