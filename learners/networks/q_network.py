"""Action values of an observation, whatever is learnt of their distribution."""

from __future__ import annotations

import math

from torch import Tensor, nn

from learners.networks.offers import Offers
from learners.networks.torsos import Torso


class ReturnModel(nn.Module):
    """What the Z numbers that a network gives for an action mean, and how they are learnt.

    Attributes:
        size: Z.
    """

    size: int

    def expected(self, outputs: Tensor) -> Tensor:
        """Expected returns: float[B, A, Z] -> float[B, A]."""
        raise NotImplementedError

    def loss(
        self,
        outputs_tm1: Tensor,
        a_tm1: Tensor,
        r_t: Tensor,
        discount_t: Tensor,
        outputs_t: Tensor,
        q_t_selector: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """How far outputs are from their target.

        Args:
            outputs_tm1: float[B, A, Z] where the action was taken.
            a_tm1: int64[B], the action taken.
            r_t: float[B], (n-step) reward.
            discount_t: float[B], gamma^n x (1 - terminated).
            outputs_t: float[B, A, Z], target network's at the successor.
            q_t_selector: float[B, A], values whose argmax picks the successor's action; -inf where it is not allowed.

        Returns:
            Losses float[B], and errors float[B], >= 0 and without gradient, that priorities are made of.
        """
        raise NotImplementedError


class Head(nn.Module):
    """From features to Z numbers an action; see `learners/networks/heads.py`."""

    def forward(self, features: Tensor, observation: Tensor, allowed: Tensor | None) -> Tensor:
        """float[B, size] of the observations [B, *shape], bool[B, A] or None -> float[B, A, Z]."""
        raise NotImplementedError


class QNetwork(nn.Module):
    """Torso, head, and what the head's numbers mean.

    Args:
        torso: features of an observation.
        head: numbers of each action.
        returns: what they mean.
        offers: which actions an observation allows.
    """

    def __init__(self, torso: Torso, head: Head, returns: ReturnModel, offers: Offers) -> None:
        super().__init__()
        self.torso = torso
        self.head = head
        self.returns = returns
        self._offers = offers

    def forward(self, observation: Tensor) -> Tensor:
        """Expected returns: [B, *observation_shape] -> float32[B, A], of forbidden actions too."""
        return self.returns.expected(self.outputs(observation))

    def outputs(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, A, Z]."""
        outputs: Tensor = self.head(self.torso.forward(observation), observation, self.allowed(observation))
        return outputs

    def allowed(self, observation: Tensor) -> Tensor | None:
        """bool[B, A], which actions may be chosen; None where all may always."""
        return self._offers.allowed(observation)

    def selectable(self, q: Tensor, observation: Tensor) -> Tensor:
        """Values float[B, A] with -inf where an action is not allowed, for argmax."""
        allowed = self.allowed(observation)
        return q if allowed is None else q.masked_fill(~allowed, -math.inf)
