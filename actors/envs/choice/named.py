"""A choice model as settings name it."""

from __future__ import annotations

from typing import Any

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
