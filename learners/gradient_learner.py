"""A learner around any update rule: what is the same for every algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.algorithm import AlgorithmConfig
from learners.learner import StepOutput
from learners.networks.normaliser import Normaliser
from learners.staging import Staging
from learners.update_rule import Updated, UpdateRule
from learners.weights import WeightSnapshot
from replay_server.batches import SampleBatch, importance_weights
from replay_server.errors import Diverged
from replay_server.specs import RecordSpec


class GradientLearner:
    """Stages a batch, weighs it, has the rule update its networks, and keeps count.

    An update whose gradient or errors are not finite is skipped and its batch kept in `bad_batch`.

    Args:
        config: the algorithm's settings.
        rule: networks and update; moved to `device`.
        spec: layout of the records.
        device: torch device (`cpu`, `cuda`).
    """

    def __init__(self, config: AlgorithmConfig, rule: UpdateRule, spec: RecordSpec, device: str) -> None:
        self._config = config
        self._rule = rule
        self._device = torch.device(device)
        self._staging = Staging(spec, self._device)
        self._normalisers = [module for module in rule.modules() if isinstance(module, Normaliser)]
        self._updates = self._version = 0
        self._skipped_in_row = 0
        self._diagnostics: list[Mapping[str, Tensor]] = []
        self.bad_batch: SampleBatch | None = None

    @property
    def updates(self) -> int:
        """Updates made, skipped ones included."""
        return self._updates

    def step(self, batch: SampleBatch) -> StepOutput | None:
        """One update from B records; see Learner.step."""
        t = self._staging(batch)
        weights = torch.from_numpy(importance_weights(batch, self._config.beta(batch.inserted)))
        weights = weights.to(self._device, non_blocking=True)
        if self._normalisers:
            t["reward"] = self._normalisers[0].reward(t["reward"])
        for optimizer in self._rule.optimizers.values():
            optimizer.schedule(batch.inserted)
        self._updates += 1
        diagnose = self._updates % self._config.diagnose_every_updates == 0
        updated = self._rule.update(t, weights, number=self._updates, diagnose=diagnose)
        if diagnose:
            self._diagnostics.append(updated.diagnostics)
        return self._finish(batch, updated)

    def drain(self) -> StepOutput | None:
        """Nothing is under way between two steps."""
        return None

    def take_metrics(self) -> dict[str, float]:
        """Means of the diagnostics since the last call."""
        taken, self._diagnostics = self._diagnostics, []
        names = taken[0].keys() if taken else ()
        return {name: float(torch.stack([d[name].detach() for d in taken]).mean()) for name in names}

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new running moments; see Learner.set_moments."""
        for normaliser in self._normalisers:
            normaliser.set_moments(moments)

    def snapshot(self) -> WeightSnapshot:
        """The acting network as the next version."""
        self._version += 1
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self._rule.acting.state_dict().items()}
        return WeightSnapshot.of(self._version, arrays)

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, optimizers, generator and counters as named tensors."""
        state: dict[str, Tensor] = dict(self._rule.state_dict())
        for name, optimizer in self._rule.optimizers.items():
            state |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state_dict().items()}
        if self._rule.generator is not None:
            state["generator"] = self._rule.generator.get_state()
        state["counters"] = torch.tensor([self._updates, self._version, self._skipped_in_row], dtype=torch.int64)
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict` bit for bit."""
        own = {"generator", "counters"}
        self._rule.load_state_dict(
            {name: v for name, v in state.items() if name not in own and not name.startswith("optimizer.")}
        )
        for name, optimizer in self._rule.optimizers.items():
            prefix = f"optimizer.{name}."
            optimizer.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        if self._rule.generator is not None:
            self._rule.generator.set_state(state["generator"])
        self._updates, self._version, self._skipped_in_row = (int(n) for n in state["counters"])

    def _finish(self, batch: SampleBatch, updated: Updated) -> StepOutput | None:
        priorities = None
        finite = all(optimizer.applied for optimizer in self._rule.optimizers.values())
        if updated.errors is not None:
            priorities = updated.errors.detach().double().cpu().numpy() + self._config.priority_epsilon
            finite = finite and bool(np.isfinite(priorities).all())
        if not finite:
            self._skip(batch)
            return None
        self._skipped_in_row = 0
        return None if priorities is None else StepOutput(batch.keys, priorities)

    def _skip(self, batch: SampleBatch) -> None:
        self.bad_batch = batch
        self._skipped_in_row += 1
        if self._skipped_in_row >= self._config.max_skipped_updates:
            raise Diverged(
                f"update {self._updates}: loss, value or gradient was not finite {self._skipped_in_row} times in a "
                "row; lower algorithm.learning_rate or algorithm.reward_scale, or look at the environment's rewards"
            )
