"""The command `headrace fit-users`: simulated users from a log of ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actors.envs.log_users.fitted_users import FittedUsers
from actors.envs.log_users.opening import open_users
from actors.envs.log_users.settings import FitSettings
from replay_server.errors import ConfigError


def fit(log: Path, model: Path | None, options: Mapping[str, str]) -> int:
    """Fit users on `log`, keep them in `model` (default beside the log) and print how good they are.

    Raises:
        ConfigError: a file or an option is bad; `model` holds users of another log or other settings.
    """
    settings = _settings(options)
    fitted = open_users(str(log), None if model is None else str(model), settings)
    print(summary(fitted))
    print(f"train on them with --environment.kwargs.model {model or f'{log}.users.npz'}")
    return 0


def summary(fitted: FittedUsers) -> str:
    """What was fitted on how much, and how good it is, in a few lines."""
    counts, judged, recall = (fitted.report[name] for name in ("split", "click_model", "recall_at_20"))
    return (
        f"{counts['users']:,} users ({counts['held_out_users']:,} held out), {counts['items']:,} items, "
        f"{counts['earlier_ratings']:,} ratings fitted on\n"
        f"clicks of held-out users: expected calibration error {judged['expected_calibration_error']:.3f}, "
        f"log loss {judged['log_loss']:.3f} (of their average: {judged['log_loss_of_their_average']:.3f})\n"
        f"recall@20 of later likes: {recall['factors']:.3f} by factors, {recall['popularity']:.3f} by popularity"
    )


def _settings(options: Mapping[str, str]) -> FitSettings:
    kinds: dict[str, type] = {name: type(value) for name, value in asdict(FitSettings()).items()}
    values: dict[str, Any] = {}
    for option, text in options.items():
        kind = kinds[option.replace("-", "_")]
        try:
            values[option.replace("-", "_")] = _BOOLEANS[text] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
            raise ConfigError(f"--{option}: must be {wanted}, not {text!r}") from error
    try:
        return FitSettings(**values)
    except ValueError as error:
        raise ConfigError(f"fit-users: {error}") from error


_BOOLEANS = {"true": True, "false": False}
