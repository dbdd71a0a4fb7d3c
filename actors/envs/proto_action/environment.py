"""ProtoAction as Gymnasium environments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.proto_action.baselines import BASELINES
from actors.envs.proto_action.bounds import BOUNDS
from actors.envs.proto_action.catalogue import Catalogue, draw_catalogue, load_catalogue
from actors.envs.proto_action.model import ProtoActionModel
from actors.envs.proto_action.response import Response
from actors.envs.proto_action.search import Index
from actors.envs.proto_action.simulation import ProtoAction
from actors.envs.proto_action.users import UserSampler
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import make_part


def make_simulation(
    num_users: int,
    *,
    catalogue: Catalogue | str | None = None,
    users: UserSampler | str | None = None,
    response: Response | str | None = None,
    index: Index | str | None = None,
    **constants: Any,
) -> ProtoAction:
    """B users, with parts given as objects, or named.

    Args:
        num_users: B.
        catalogue: or the path of a .npy file of float32[N, d].
        users: or package.module:Class, called with model and catalogue.
        response: or package.module:Class, called with the model.
        index: or package.module:Class, called with the items float32[N, d].
        constants: fields of ProtoActionModel.

    Raises:
        ConfigError: no such file, module or class.
    """
    model = ProtoActionModel(**constants)
    if catalogue is None:
        catalogue = draw_catalogue(model)
    elif isinstance(catalogue, str):
        catalogue = load_catalogue(catalogue)
    return ProtoAction(
        model,
        num_users,
        catalogue=catalogue,
        users=None
        if users is None
        else make_part(users, "environment.kwargs.users", ["draw"], model=model, catalogue=catalogue),
        response=None
        if response is None
        else make_part(response, "environment.kwargs.response", ["wish", "draw"], model=model),
        index=None
        if index is None
        else make_part(index, "environment.kwargs.index", ["search"], items=catalogue.items),
    )


class ProtoActionEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(make_simulation(1, **settings), render_mode)


class ProtoActionVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    simulation: ProtoAction
    _baselines = BASELINES
    _bounds = BOUNDS

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 20,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        simulation = make_simulation(num_envs, **settings)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
