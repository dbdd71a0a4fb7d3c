"""One update of an algorithm that learns action values, and what it measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from learners.algorithm import seeded
from learners.losses.reductions import weighted_mean
from learners.optimizers import Optimizer
from learners.targets import TargetUpdate
from learners.task import Task
from learners.update_rule import Updated, UpdateRule, spread

if TYPE_CHECKING:
    from learners.value_config import ValueConfig


class ValueRule(UpdateRule):
    """Online and target network; what is learnt of the return is the network's reading."""

    def __init__(self, config: ValueConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._double = config.double
        generator = seeded(seed)
        self.online = config.make_network(task, generator).to(device)
        self.target = config.make_network(task, generator).to(device)
        self._move_target = TargetUpdate(
            (self.online, self.target), tau=config.target_update_tau, period=config.target_update_period_updates
        )
        self.optimizers = {"online": Optimizer(self.online, config)}

    @property
    def acting(self) -> nn.Module:
        """The online network."""
        return self.online

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step on the weighted losses of the reading; see UpdateRule.update."""
        online, a_tm1, r_t, discount_t = self.online, t["action"], t["reward"], t["discount"]
        outputs_tm1 = online.outputs(t["observation"])
        with torch.no_grad():
            outputs_t = self.target.outputs(t["next_observation"])
            q_t = online(t["next_observation"]) if self._double else self.target.reading.expected(outputs_t)
            selector = online.selectable(q_t, t["next_observation"])
        losses, errors = online.reading.compare(outputs_tm1, a_tm1, r_t, discount_t, outputs_t, selector)
        loss = weighted_mean(losses, weights)
        self.optimizers["online"].minimise(loss)
        self._move_target(number)
        if not diagnose:
            return Updated(errors)
        with torch.no_grad():
            q_tm1 = online.reading.expected(outputs_tm1)
            bootstrap = self.target.reading.expected(outputs_t).gather(1, selector.argmax(dim=1, keepdim=True))
            target_tm1 = r_t + discount_t * bootstrap.squeeze(1)
            taken = q_tm1.gather(1, a_tm1.unsqueeze(1)).squeeze(1)
            greedy = online.selectable(q_tm1, t["observation"]).argmax(dim=1)
        return Updated(
            errors,
            spread(q=taken, target=target_tm1, bootstrap=bootstrap.squeeze(1))
            | {
                "loss": loss,
                "td_error": (target_tm1 - taken).abs().mean(),
                "greedy_share": (greedy == a_tm1).float().mean(),
                "greedy_entropy": choice_entropy(greedy, q_tm1.shape[1]),
            },
        )


def choice_entropy(choice: Tensor, count: int) -> Tensor:
    """Entropy, in nats, of how often each of `count` actions is chosen in int64[B]: float[]."""
    shares = torch.zeros(count, device=choice.device)
    shares.scatter_add_(0, choice, torch.full_like(choice, 1, dtype=shares.dtype) / len(choice))
    return -torch.xlogy(shares, shares).sum()
