"""How a user who is shown a slate consumes one of its items, or none."""

from __future__ import annotations

from actors.envs.choice.choice import CascadeModel, ChoiceModel, ShareModel, draw, unrepeated
from actors.envs.choice.exponential_cascade import ExponentialCascade
from actors.envs.choice.multinomial_logit import MultinomialLogit
from actors.envs.choice.named import check_choice_model, make_choice_model
from actors.envs.choice.position_based import PositionBased
from actors.envs.choice.proportional import Proportional
from actors.envs.choice.proportional_cascade import ProportionalCascade

__all__ = [
    "CascadeModel",
    "ChoiceModel",
    "ExponentialCascade",
    "MultinomialLogit",
    "PositionBased",
    "Proportional",
    "ProportionalCascade",
    "ShareModel",
    "check_choice_model",
    "draw",
    "make_choice_model",
    "unrepeated",
]
