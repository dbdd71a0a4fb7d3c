"""NextItem as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.next_item.baselines import BASELINES
from actors.envs.next_item.bounds import BOUNDS
from actors.envs.next_item.catalogue import Catalogue
from actors.envs.next_item.model import NextItemModel
from actors.envs.next_item.response import MatchResponse, Response
from actors.envs.next_item.simulation import NextItem
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import import_object

RespondsBy = str | Callable[[Catalogue], Response]


class NextItemEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        response: see NextItemVectorEnv.
        constants: fields of NextItemModel.
    """

    def __init__(self, render_mode: str | None = None, response: RespondsBy = "match", **constants: Any) -> None:
        super().__init__(NextItem(NextItemModel(**constants), 1, _respond(response)), render_mode)


class NextItemVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        response: "match", or a class (or its path, `package.module:Class`) that is given the Catalogue: see Response.
        constants: fields of NextItemModel.
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
        response: RespondsBy = "match",
        **constants: Any,
    ) -> None:
        simulation = NextItem(NextItemModel(**constants), num_envs, _respond(response))
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )


def _respond(response: RespondsBy) -> Callable[[Catalogue], Response]:
    if not isinstance(response, str):
        return response
    if response == "match":
        return MatchResponse
    made: Callable[[Catalogue], Response] = import_object(response, "environment.kwargs.response")
    return made
