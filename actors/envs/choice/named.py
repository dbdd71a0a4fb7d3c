"""A choice model as settings name it."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.envs.choice.choice import ChoiceModel
from actors.envs.choice.exponential_cascade import ExponentialCascade
from actors.envs.choice.multinomial_logit import MultinomialLogit
from actors.envs.choice.position_based import PositionBased
from actors.envs.choice.proportional import Proportional
from actors.envs.choice.proportional_cascade import ProportionalCascade
from actors.imports import import_object
from replay_server.errors import ConfigError

_NAMES = "mnl, proportional, exponential_cascade, proportional_cascade, position_based"


def make_choice_model(given: str | ChoiceModel, field: str = "choice_model", **constants: Any) -> ChoiceModel:
    """The model that is meant.

    Args:
        given: a short name (`mnl`, `proportional`, `exponential_cascade`, `proportional_cascade`, `position_based`),
            `package.module:Class`, or a model, which is returned as it is.
        field: what errors call the setting.
        constants: of the class that a name means.

    Raises:
        ConfigError: no such name or class, or constants that it does not take; one line with the remedy.
    """
    if not isinstance(given, str):
        if constants:
            raise ConfigError(f"{field}: {type(given).__name__} is made already, {sorted(constants)} come too late")
        return given
    try:
        made: ChoiceModel = _class_of(given, field)(**constants)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{field} {given}: {error}") from error
    if not callable(getattr(made, "probabilities", None)):
        raise ConfigError(f"{field}: {given} has no method probabilities(scores, shown); see actors.envs.choice")
    return made


def check_choice_model(choice: ChoiceModel, slots: int) -> None:
    """Try a model on two slates of `slots` places.

    Raises:
        ConfigError: what it gives are no probabilities of the places and of none.
    """
    scores = np.linspace(-1.0, 1.0, 2 * slots, dtype=np.float32).reshape(2, slots)
    found = np.asarray(choice.probabilities(scores, np.ones(scores.shape, dtype=np.bool_)))
    wrong = ""
    if found.shape != (2, slots + 1):
        wrong = f"shape {list(found.shape)}"
    elif not (found >= 0.0).all():
        wrong = "numbers below 0 or NaN"
    elif not np.allclose(found.sum(axis=1), 1.0, atol=1e-3):
        wrong = f"rows of sum {found.sum(axis=1).tolist()}"
    if wrong:
        raise ConfigError(
            f"choice_model: {type(choice).__name__}.probabilities gives {wrong} for scores [2, {slots}]; return "
            f"[2, {slots + 1}] with rows that sum to 1, the last column for nothing"
        )


def _class_of(name: str, field: str) -> Any:
    match name:
        case "mnl":
            return MultinomialLogit
        case "proportional":
            return Proportional
        case "exponential_cascade":
            return ExponentialCascade
        case "proportional_cascade":
            return ProportionalCascade
        case "position_based":
            return PositionBased
    if ":" not in name:
        raise ConfigError(f"{field} is {name!r}, must be one of {_NAMES}, or package.module:Class")
    return import_object(name, field)
