"""What SlateQ knows of a user who is shown candidates: values of the outcomes, and which outcome is how likely."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learners.networks.initialise import linear
from learners.networks.offers import Offers
from learners.networks.q_network import Head
from learners.networks.torsos import Torso
from learners.task import Task
from replay_server.errors import ConfigError

_LEAST_OF_NONE = 1e-30  # beside a largest of 1


class OutcomeNetwork(nn.Module):
    """One number for consuming each candidate and one for consuming none.

    Args:
        torso: features of an observation.
        head: a number for each candidate.
        generator: initialises the number for none.
        dueling: the head's numbers are advantages over consuming none. What all outcomes have alike is then learnt
            from every record, and not by each item for itself from the few in which it was consumed.
    """

    def __init__(self, torso: Torso, head: Head, generator: torch.Generator, *, dueling: bool) -> None:
        super().__init__()
        self.torso = torso
        self.head = head
        self.none = linear(torso.size, 1, generator)
        self._dueling = dueling

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, M + 1], the last for none."""
        features = self.torso(observation)
        items, none = self.head(features, observation, None).squeeze(2), self.none(features)
        return torch.cat([items + none if self._dueling else items, none], dim=1)


class GivenChoice(nn.Module):
    """The user's choice as the environment tells it: part `choice_scores`, v >= 0 of M candidates and of none."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        part, candidates = task.part("choice_scores"), task.slate("slateq").candidates
        if part is None or part.shape != (candidates + 1,):
            found = "has none" if part is None else f"gives shape {list(part.shape)}"
            raise ConfigError(
                f"algorithm.choice: given takes a part choice_scores [{candidates + 1}], of each candidate and of "
                f"none, the environment {found}; take learnt"
            )
        self._part = part

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, M + 1], log v."""
        return self._part.of(observation).float().log()


class SlateNetwork(nn.Module):
    """Values and choice.

    Attributes:
        values: Qbar(s, i) of each outcome i (Ie et al. 2019, equation 15).
        choice: log v(s, i) of each outcome; P(i|s, slate) = v_i / (v_none + sum of the slate's v).
    """

    def __init__(self, values: OutcomeNetwork, choice: OutcomeNetwork | GivenChoice, offers: Offers) -> None:
        super().__init__()
        self.values = values
        self.choice = choice
        self._offers = offers

    def offered(self, observation: Tensor, candidates: int) -> Tensor:
        """bool[B, candidates], which may be shown."""
        allowed = self._offers.allowed(observation)
        if allowed is None:
            return torch.ones(len(observation), candidates, dtype=torch.bool, device=observation.device)
        return allowed

    def scores(self, observation: Tensor, offered: Tensor) -> Tensor:
        """v of each outcome, 0 where a candidate is not on offer, scaled to a largest of 1: float32[B, M + 1].

        That of none is never quite 0, so that every slate has a value: where nothing draws the user (a terminal state
        of zeros) nothing is consumed.
        """
        always = torch.ones_like(offered[:, :1])
        logits = self.choice(observation).masked_fill(~torch.cat([offered, always], dim=1), -torch.inf)
        scores = torch.exp(logits - logits.amax(dim=1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min))
        return torch.cat([scores[:, :-1], scores[:, -1:].clamp(min=_LEAST_OF_NONE)], dim=1)
