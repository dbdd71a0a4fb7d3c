"""LogUsers: simulated users fitted on a log of real ratings."""

from actors.envs.log_users.environment import LogUsersEnv, LogUsersVectorEnv
from actors.envs.log_users.fitted_users import FittedUsers
from actors.envs.log_users.fitting import fit_users
from actors.envs.log_users.model import LogUsersModel
from actors.envs.log_users.opening import open_users
from actors.envs.log_users.rating_log import RatingLog, read_log
from actors.envs.log_users.settings import FitSettings
from actors.envs.log_users.simulation import LogUsers

__all__ = [
    "FitSettings",
    "FittedUsers",
    "LogUsers",
    "LogUsersEnv",
    "LogUsersModel",
    "LogUsersVectorEnv",
    "RatingLog",
    "fit_users",
    "open_users",
    "read_log",
]
