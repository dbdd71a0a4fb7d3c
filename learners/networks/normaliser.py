"""Running moments inside a network, so that they travel with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.task import Task

_CLIP = 10.0  # standardised observations beyond this are outliers of the running moments
_LEAST = 1e-4  # deviations below this are numerical dust
_ITEMS = ("candidates", "choice_scores", "history", "response")  # alike in every place, and zero has a meaning


class Normaliser(nn.Module):
    """Flattens observations to float32 and, where the task asks for it, standardises them and scales rewards.

    Whole numbers of a packed observation (ids, masks) pass unchanged, and so do its parts that are about items
    (`candidates`, `choice_scores`, `history`, `response`). Images that are not standardised come out between 0 and 1.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._observations, self._rewards = task.normalise_observations, task.normalise_rewards
        self._untouched = [part for part in task.parts if part.integer or part.name in _ITEMS]
        self._pixels = task.is_image
        self.mean: Tensor
        self.inverse_std: Tensor
        self.reward_factor: Tensor
        self.register_buffer("mean", torch.zeros(task.observation_size))
        self.register_buffer("inverse_std", torch.ones(task.observation_size))
        self.register_buffer("reward_factor", torch.ones(()))

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *shape] of any number dtype -> float32[B, size]."""
        flat = (observation if observation.dim() == 2 else observation.reshape(len(observation), -1)).float()
        if not self._observations:
            return flat / 255.0 if self._pixels else flat
        return ((flat - self.mean) * self.inverse_std).clamp(-_CLIP, _CLIP)

    def reward(self, r_t: Tensor) -> Tensor:
        """Rewards [B] as the learner counts them."""
        return r_t * self.reward_factor if self._rewards else r_t

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new moments: `observation_mean`, `observation_std` [*shape] and `return_std` [], each optional."""
        if "observation_mean" in moments:
            mean, std = (
                torch.as_tensor(moments[f"observation_{name}"], dtype=torch.float32).flatten()
                for name in ("mean", "std")
            )
            inverse = 1.0 / std.clamp(min=_LEAST)
            for part in self._untouched:
                mean[part.start : part.stop], inverse[part.start : part.stop] = 0.0, 1.0
            self.mean.copy_(mean)
            self.inverse_std.copy_(inverse)
        if "return_std" in moments:
            self.reward_factor.fill_(1.0 / max(float(moments["return_std"]), _LEAST))
