"""What a log says of choices made: single actions, or slates of which something was consumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from learners.task import DiscreteActions, SlateActions, Task


def one_choice(task: Task) -> Task:
    """The task with one item to choose in place of a slate."""
    if not isinstance(task.actions, SlateActions):
        return task
    return msgspec.structs.replace(task, actions=DiscreteActions(task.actions.candidates))


@dataclass(frozen=True)
class Logged:
    """What records say of B choices.

    Attributes:
        a: int64[B], the action, or the first item of the slate that was consumed.
        behaviour_log_prob: float[B], log of its chance to be chosen, or to be on the slate.
        counted: float[B], 1 where something was consumed, else 0.
        rewarded: float[B], 1 where the policy is to learn from it, else 0.
    """

    a: Tensor
    behaviour_log_prob: Tensor
    counted: Tensor
    rewarded: Tensor

    @classmethod
    def of(cls, t: Mapping[str, Tensor], slates: bool, rewarded_only: bool) -> Logged:
        """Read off columns."""
        a, behaviour_log_prob = t["action"], t["behaviour_log_prob"]
        counted = torch.ones_like(t["reward"])
        if slates:
            consumed = t["first_response"] > 0.5
            place = consumed.int().argmax(dim=1, keepdim=True)
            a, behaviour_log_prob = a.gather(1, place).squeeze(1), t["propensity"].gather(1, place).squeeze(1).log()
            counted = consumed.any(dim=1).float()
        rewarded = counted * (t["first_reward"] != 0) if rewarded_only else counted
        return cls(a, behaviour_log_prob, counted, rewarded)


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """Mean float[] of values [B] over the records with 1 in `counted` [B]; 0 where there are none."""
    return torch.dot(values, counted) / counted.sum().clamp(min=1.0)


def standardised(values: Tensor, counted: Tensor, epsilon: float) -> Tensor:
    """Values [B] minus mean, over deviation plus epsilon, both of those with 1 in `counted` [B]."""
    centred = values - mean_of(values, counted)
    return centred / (mean_of(centred.square(), counted).sqrt() + epsilon)
