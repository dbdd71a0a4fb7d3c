"""What a log says of choices made: single actions, or slates of which something was consumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from learners.losses.slate import consumed_place
from learners.task import DiscreteActions, SlateActions, Task
from replay_server.errors import ConfigError


def one_choice(task: Task) -> Task:
    """The task with one item to choose in place of a slate."""
    if not isinstance(task.actions, SlateActions):
        return task
    return msgspec.structs.replace(task, actions=DiscreteActions(task.actions.candidates))


def check_response(task: Task, algorithm: str) -> None:
    """Raises ConfigError where observations do not say what was made of the last slate."""
    part, slots = task.part("response"), task.slate(algorithm).slots
    if part is None or part.shape != (slots,):
        found = "has none" if part is None else f"gives shape {list(part.shape)}"
        raise ConfigError(
            f"environment.id: {algorithm} takes a part response [{slots}], 1 where the last slate's item was consumed, "
            f"the environment {found}; observe a Dict with it"
        )


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
            place, slots = consumed_place(t["first_response"]), a.shape[1]
            at = torch.where(place < slots, place, 0).unsqueeze(1)
            a, behaviour_log_prob = a.gather(1, at).squeeze(1), t["propensity"].gather(1, at).squeeze(1).log()
            counted = (place < slots).float()
        rewarded = counted * (t["first_reward"] != 0) if rewarded_only else counted
        return cls(a, behaviour_log_prob, counted, rewarded)
