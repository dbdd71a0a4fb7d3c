"""LogUsers as Gymnasium environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from actors.envs.log_users.baselines import BASELINES
from actors.envs.log_users.bounds import BOUNDS
from actors.envs.log_users.model import LogUsersModel
from actors.envs.log_users.opening import open_users
from actors.envs.log_users.settings import FitSettings
from actors.envs.log_users.simulation import LogUsers
from actors.envs.user import UserEnv
from actors.envs.users import UsersVectorEnv
from actors.imports import import_object


class LogUsersEnv(UserEnv):
    """One user; see UserEnv.

    Args:
        render_mode: always None, there is nothing to draw.
        arguments: as of LogUsersVectorEnv, from `log` on.
    """

    def __init__(self, render_mode: str | None = None, **arguments: Any) -> None:
        super().__init__(make_simulation(1, **arguments), render_mode)


class LogUsersVectorEnv(UsersVectorEnv):
    """Many users; see UsersVectorEnv.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        arguments: `log`, a file of ratings that users are fitted on at first use; `model`, the file of fitted users
            (default LOG.users.npz); `fit`, a mapping of fields of FitSettings; `click_model`, a class
            package.module:Class built from FittedUsers instead of CalibratedClicks; and fields of LogUsersModel.

    Raises:
        ConfigError: a file is missing or bad, or arguments contradict each other.
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
        **arguments: Any,
    ) -> None:
        super().__init__(
            make_simulation(num_envs, **arguments),
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
    click_model: str | None = None,
    **constants: Any,
) -> LogUsers:
    """The simulation of the arguments that environments take; see LogUsersVectorEnv."""
    chosen = LogUsersModel(**constants)
    fitted = open_users(log, model, None if fit is None else FitSettings(**fit))
    if chosen.catalogue is not None:
        fitted = fitted.most_rated(chosen.catalogue)
    clicks = None
    if click_model is not None:
        clicks = import_object(click_model, "environment.kwargs.click_model")(fitted)
    return LogUsers(chosen, fitted, num_users, clicks)
