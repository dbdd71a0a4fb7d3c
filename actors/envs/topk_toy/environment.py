"""TopKToy as Gymnasium environments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.topk_toy.baselines import BASELINES
from actors.envs.topk_toy.bounds import BOUNDS
from actors.envs.topk_toy.model import TopKToyModel
from actors.envs.topk_toy.simulation import TopKToy
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv


class TopKToyEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        constants: fields of TopKToyModel.
    """

    def __init__(self, render_mode: str | None = None, **constants: Any) -> None:
        super().__init__(TopKToy(TopKToyModel(**constants), 1), render_mode)


class TopKToyVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: a limit that is never reached.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        constants: fields of TopKToyModel.
    """

    simulation: TopKToy
    _baselines = BASELINES
    _bounds = BOUNDS

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **constants: Any,
    ) -> None:
        simulation = TopKToy(TopKToyModel(**constants), num_envs)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
