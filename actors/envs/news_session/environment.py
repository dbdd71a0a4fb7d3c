"""NewsSession as Gymnasium environments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.news_session.baselines import BASELINES
from actors.envs.news_session.clicks import ClickModel, PositionDiscountedClicks
from actors.envs.news_session.model import NewsSessionModel
from actors.envs.news_session.simulation import NewsSession
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import import_object


class NewsSessionEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        click_model: see `make_click_model`.
        constants: fields of NewsSessionModel.
    """

    def __init__(
        self, render_mode: str | None = None, click_model: str | ClickModel = "position", **constants: Any
    ) -> None:
        super().__init__(NewsSession(NewsSessionModel(**constants), 1, make_click_model(click_model)), render_mode)


class NewsSessionVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: requests after which an episode is truncated; None: when its days are over.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        click_model: see `make_click_model`.
        constants: fields of NewsSessionModel.
    """

    simulation: NewsSession
    _baselines = BASELINES

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        click_model: str | ClickModel = "position",
        **constants: Any,
    ) -> None:
        simulation = NewsSession(NewsSessionModel(**constants), num_envs, make_click_model(click_model))
        super().__init__(
            simulation, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode, render_mode=render_mode
        )


def make_click_model(given: str | ClickModel) -> ClickModel:
    """A model as it is, `position` (PositionDiscountedClicks), or the `package.module:Class` of one.

    Raises:
        ConfigError: no such class.
    """
    if not isinstance(given, str):
        return given
    if given == "position":
        return PositionDiscountedClicks()
    made: ClickModel = import_object(given, "environment.kwargs.click_model")()
    return made
