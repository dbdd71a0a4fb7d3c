"""From the path of a log to its fitted users, which are kept in a file beside it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from actors.envs.log_users.fitted_users import FittedUsers, not_writable
from actors.envs.log_users.fitting import fit_users
from actors.envs.log_users.rating_log import read_log
from actors.envs.log_users.settings import FitSettings
from replay_server.errors import ConfigError


def open_users(
    log: str | None, model: str | None, settings: FitSettings | None = None, *, progress: bool = True
) -> FittedUsers:
    """The users of a model's file, or of a log: then they are fitted once and kept.

    Args:
        log: file of ratings; None takes `model` as it is.
        model: file of the fitted users; None puts it beside the log, as LOG.users.npz.
        settings: of fitting a log; None for the defaults.
        progress: show bars on standard error while fitting.

    Raises:
        ConfigError: neither is given, a file is bad, or the model was fitted on another log or otherwise.
    """
    if log is None:
        if model is None:
            raise ConfigError(
                "headrace/LogUsers-v0 needs a log of ratings, as in --environment.kwargs.log ratings.csv, or users "
                "fitted on one, as in --environment.kwargs.model users.npz"
            )
        if settings is not None:
            raise ConfigError("environment.kwargs.fit says how a log is fitted: name it as log, or leave fit out")
        return FittedUsers.load(Path(model))
    place = Path(model) if model is not None else Path(f"{log}.users.npz")
    return fit_once(Path(log), place, settings or FitSettings(), progress=progress)


def fit_once(log: Path, model: Path, settings: FitSettings, *, progress: bool) -> FittedUsers:
    """The users of `model` where they were fitted on this log with these settings; else fit them and write the file.

    Raises:
        ConfigError: a file is bad, or `model` holds something else, which is never overwritten.
    """
    source = {"sha256": _digest(log), "settings": asdict(settings)}
    if model.exists():
        fitted = FittedUsers.load(model)
        if fitted.source != source:
            raise ConfigError(
                f"{model}: {_difference(fitted.source, source)}; delete it, or name another file for the model"
            )
        return fitted
    if not os.access(model.parent, os.W_OK):  # told before minutes of work
        raise ConfigError(not_writable(model, OSError(0, f"{model.parent} is missing or read-only")))
    fitted = replace(fit_users(read_log(log, progress=progress), settings, progress=progress), source=source)
    fitted.save(model)
    return fitted


def _digest(log: Path) -> str:
    try:
        with log.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{log}: cannot be read ({error.strerror}); give the file of a log of ratings") from error


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    if found.get("sha256") != wanted["sha256"]:
        return "was fitted on another log"
    settings = found.get("settings", {})
    changed = [
        f"{name} {settings.get(name)}" for name, value in wanted["settings"].items() if settings.get(name) != value
    ]
    return f"was fitted with {', '.join(changed)}"
