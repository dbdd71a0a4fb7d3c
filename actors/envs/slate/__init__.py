"""Slates: a user with a budget of time is shown a few of many documents at once and watches one of them, or none."""

from __future__ import annotations

from actors.envs.slate.catalogue import Catalogue, draw_catalogue
from actors.envs.slate.environment import SlateEnv, SlateVectorEnv
from actors.envs.slate.interests import InterestModel, UserSampler
from actors.envs.slate.model import SlateModel
from actors.envs.slate.simulation import SlateSimulation

__all__ = [
    "Catalogue",
    "InterestModel",
    "SlateEnv",
    "SlateModel",
    "SlateSimulation",
    "SlateVectorEnv",
    "UserSampler",
    "draw_catalogue",
]
