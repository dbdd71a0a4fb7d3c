"""Which actions an observation offers: `action_mask` and `candidates` in a packed Dict observation."""

from __future__ import annotations

from torch import Tensor

from learners.task import Part, Task
from replay_server.errors import ConfigError


class Offers:
    """Reads allowed actions and candidates out of observations.

    An observation that allows nothing (a terminal state with a mask of zeros) is read as allowing everything: nobody
    acts there, and no value of it is ever NaN.

    Args:
        task: with A discrete actions, or slates out of A candidates; `action_mask` [A] holds 1 where an action is
            allowed; `candidates` holds item ids [A] (-1: none) or item features [A, d]. With candidates an action is a
            position among them.
        actions: A.

    Raises:
        ConfigError: a part has not A entries.
    """

    def __init__(self, task: Task, actions: int) -> None:
        self._mask, self._candidates = task.part("action_mask"), task.part("candidates")
        if self._mask is not None and self._mask.shape != (actions,):
            raise ConfigError(
                f"environment.id: action_mask has shape {list(self._mask.shape)}, the actions are {actions}; give one "
                "number an action"
            )
        if self._candidates is not None and self._candidates.shape[0] != actions:
            raise ConfigError(
                f"environment.id: {self._candidates.shape[0]} candidates, but {actions} actions; an action is a "
                "position among the candidates, so make them equal"
            )

    @property
    def candidates(self) -> Part | None:
        """The part with candidates, or None."""
        return self._candidates

    def allowed(self, observation: Tensor) -> Tensor | None:
        """[B, *shape] -> bool[B, A], or None where all actions are always allowed."""
        allowed: Tensor | None = None
        if self._mask is not None:
            allowed = self._mask.of(observation) > 0.5
        if (ids := self.candidate_ids(observation)) is not None:
            offered = ids >= 0
            allowed = offered if allowed is None else allowed & offered
        return None if allowed is None else allowed | ~allowed.any(dim=1, keepdim=True)

    def candidate_ids(self, observation: Tensor) -> Tensor | None:
        """[B, *shape] -> int64[B, A] with -1 for none, or None where candidates are not ids."""
        if self._candidates is None or len(self._candidates.shape) != 1:
            return None
        return self._candidates.of(observation).round().long()

    def candidate_features(self, observation: Tensor) -> Tensor | None:
        """[B, *shape] -> float32[B, A, d], or None where candidates are not features."""
        if self._candidates is None or len(self._candidates.shape) != 2:
            return None
        return self._candidates.of(observation).float().reshape(len(observation), *self._candidates.shape)
