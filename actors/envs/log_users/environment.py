"""LogUsers as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.log_users.baselines import BASELINES
from actors.envs.log_users.bounds import BOUNDS
from actors.envs.log_users.clicks import ClickModel
from actors.envs.log_users.model import LogUsersModel
from actors.envs.log_users.opening import open_users
from actors.envs.log_users.settings import FitSettings
from actors.envs.log_users.simulation import LogUsers
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import make_part


class LogUsersEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(make_simulation(1, **settings), render_mode)


class LogUsersVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        settings: as those of `make_simulation`.
    """

    simulation: LogUsers
    _baselines = BASELINES
    _bounds = BOUNDS

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = 20,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            make_simulation(num_envs, **settings),
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
        )


def make_simulation(
    num_users: int,
    *,
    log: str | None = None,
    model: str | None = None,
    fit: Mapping[str, Any] | None = None,
    click_model: ClickModel | str | None = None,
    **constants: Any,
) -> LogUsers:
    """B users.

    Args:
        num_users: B.
        log: a file of ratings that users are fitted on at first use.
        model: the file of fitted users; default LOG.users.npz.
        fit: fields of FitSettings.
        click_model: how likely clicks are; or package.module:Class, called with FittedUsers; default CalibratedClicks.
        constants: fields of LogUsersModel.

    Raises:
        ConfigError: a file is missing or bad, or arguments contradict each other.
    """
    chosen = LogUsersModel(**constants)
    fitted = open_users(log, model, None if fit is None else FitSettings(**fit))
    if chosen.catalogue is not None:
        fitted = fitted.most_rated(chosen.catalogue)
    if click_model is None:
        return LogUsers(chosen, fitted, num_users)
    clicks = make_part(click_model, "environment.kwargs.click_model", ["of_pairs", "of_all"], fitted=fitted)
    return LogUsers(chosen, fitted, num_users, clicks)
