"""NextItem as Gymnasium environments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.next_item.baselines import BASELINES
from actors.envs.next_item.bounds import BOUNDS
from actors.envs.next_item.catalogue import draw_catalogue
from actors.envs.next_item.model import NextItemModel
from actors.envs.next_item.response import Response
from actors.envs.next_item.simulation import NextItem
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import make_part


def make_simulation(
    num_users: int, *, response: Response | type[Response] | str | None = None, **constants: Any
) -> NextItem:
    """B users.

    Args:
        num_users: B.
        response: what users do with a shown item; or a class, or package.module:Class, called with the Catalogue;
            default MatchResponse.
        constants: fields of NextItemModel.

    Raises:
        ConfigError: no such class, or it is none of a response.
    """
    model = NextItemModel(**constants)
    if response is None:
        return NextItem(model, num_users)
    made = make_part(response, "environment.kwargs.response", ["probability"], catalogue=draw_catalogue(model))
    return NextItem(model, num_users, made)


class NextItemEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(make_simulation(1, **settings), render_mode)


class NextItemVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    simulation: NextItem
    _baselines = BASELINES
    _bounds = BOUNDS

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 30,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        simulation = make_simulation(num_envs, **settings)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
