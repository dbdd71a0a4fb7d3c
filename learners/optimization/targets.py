"""Target networks: slow copies that bootstrapped values come from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learners.optimization.flat import blocks, flatten


class TargetUpdate:
    """Moves target networks after their online ones, softly by `tau` each call or by a copy every `period` calls.

    Args:
        pairs: (online, target) networks of the same shape; targets start as copies and get no gradients.
        tau: in (0, 1], share of the online network taken over by each call; None for copies.
        period: calls between two copies; None for soft updates.
    """

    def __init__(self, *pairs: tuple[nn.Module, nn.Module], tau: float | None, period: int | None = None) -> None:
        for online, target in pairs:
            target.load_state_dict(online.state_dict())
            target.requires_grad_(False)
            flatten(list(target.parameters()))
        self._pairs = pairs
        self._tau, self._period = tau, period
        self._online: list[Tensor] = []
        self._target: list[Tensor] = []

    def __call__(self, updates: int) -> None:
        """Update number `updates`, counted from 1, was made."""
        if not self._online:  # by now optimizers have moved the parameters to where they stay
            self._gather()
        with torch.no_grad():
            if self._tau is not None:
                torch._foreach_lerp_(self._target, self._online, self._tau)
            elif self._period is not None and updates % self._period == 0:
                torch._foreach_copy_(self._target, self._online)

    def _gather(self) -> None:
        for online, target in self._pairs:
            ours, theirs = blocks(online.parameters()), blocks(target.parameters())
            if len(ours) > 1 or len(theirs) > 1:
                ours, theirs = list(online.parameters()), list(target.parameters())
            self._online += ours
            self._target += theirs
