"""The slate tasks as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.choice import ChoiceModel, make_choice_model
from actors.envs.slate.baselines import BASELINES
from actors.envs.slate.bounds import BOUNDS
from actors.envs.slate.model import SlateModel
from actors.envs.slate.simulation import SlateSimulation
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv


def make_simulation(
    num_users: int,
    *,
    choice_model: ChoiceModel | str = "mnl",
    choice: Mapping[str, Any] | None = None,
    **constants: Any,
) -> SlateSimulation:
    """B users.

    Args:
        num_users: B.
        choice_model: what the user does with a slate: an object, or a name as in `make_choice_model`.
        choice: arguments of the model that is named.
        constants: fields of SlateModel.

    Raises:
        ConfigError: there is no such model, or it takes other arguments.
    """
    made = make_choice_model(choice_model, **(choice or {}))
    return SlateSimulation(SlateModel(**constants), num_users, choice_model=made)


class SlateEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(make_simulation(1, **settings), render_mode)


class SlateVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: steps after which a session is truncated, in case its time never ends.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    simulation: SlateSimulation
    _baselines = BASELINES
    _bounds = BOUNDS

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 600,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        simulation = make_simulation(num_envs, **settings)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
