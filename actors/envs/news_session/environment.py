"""NewsSession as Gymnasium environments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.news_session.baselines import BASELINES
from actors.envs.news_session.clicks import ClickModel
from actors.envs.news_session.model import NewsSessionModel
from actors.envs.news_session.simulation import NewsSession
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import make_part


def make_simulation(num_users: int, *, click_model: ClickModel | str | None = None, **constants: Any) -> NewsSession:
    """B users.

    Args:
        num_users: B.
        click_model: which articles are clicked, or package.module:Class of it; default PositionDiscountedClicks.
        constants: fields of NewsSessionModel.

    Raises:
        ConfigError: no such class, or it is none of a click model.
    """
    made = None if click_model is None else make_part(click_model, "environment.kwargs.click_model", ["probabilities"])
    return NewsSession(NewsSessionModel(**constants), num_users, made)


class NewsSessionEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(make_simulation(1, **settings), render_mode)


class NewsSessionVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: requests after which an episode is truncated; None: when its days are over.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    simulation: NewsSession
    _baselines = BASELINES

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        simulation = make_simulation(num_envs, **settings)
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
