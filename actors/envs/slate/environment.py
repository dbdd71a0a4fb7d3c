"""The slate tasks as Gymnasium environments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.choice import ChoiceModel
from actors.envs.slate.baselines import BASELINES
from actors.envs.slate.bounds import BOUNDS
from actors.envs.slate.model import SlateModel
from actors.envs.slate.simulation import SlateSimulation
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv


class SlateEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        choice_model: see SlateSimulation.
        render_mode: always None, there is nothing to draw.
        constants: fields of SlateModel.
    """

    def __init__(
        self, choice_model: str | ChoiceModel = "mnl", render_mode: str | None = None, **constants: Any
    ) -> None:
        super().__init__(SlateSimulation(SlateModel(**constants), 1, choice_model=choice_model), render_mode)


class SlateVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: steps after which a session is truncated, in case its time never ends.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        choice_model: see SlateSimulation.
        constants: fields of SlateModel.
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
        choice_model: str | ChoiceModel = "mnl",
        **constants: Any,
    ) -> None:
        simulation = SlateSimulation(SlateModel(**constants), num_envs, choice_model=choice_model)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
