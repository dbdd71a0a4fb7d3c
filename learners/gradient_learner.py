"""A learner around any update rule: what is the same for every algorithm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.algorithm import AlgorithmConfig, continue_generator
from learners.learner import StepOutput
from learners.networks.normaliser import Normaliser
from learners.optimization.optimizers import NotFinite
from learners.optimization.undo import Undo
from learners.readback import Finished, UnderWay
from learners.replicas import ALONE, Replicas
from learners.staging import Staging
from learners.update_rule import UpdateRule
from learners.weights import WeightSnapshot
from replay_server.batches import SampleBatch
from replay_server.errors import Diverged
from replay_server.importance import importance_weights, warm_up
from replay_server.specs import RecordSpec


class GradientLearner:
    """Stages a batch, weighs it, has the rule update its networks, and keeps count.

    An update whose loss, gradient or priorities are not finite is skipped: networks, targets and optimizers stay as
    they were. On a CPU a step looks at its own result. On a GPU that would wait for the device, so there the device
    itself takes such an update back, and a step returns the result of the one before.

    Args:
        config: the algorithm's settings.
        rule: networks and update, on `device`.
        spec: layout of the records.
        device: torch device (`cpu`, `cuda`).
        deferred: work as on a GPU; None: wherever `device` is not a CPU.
    """

    def __init__(
        self, config: AlgorithmConfig, rule: UpdateRule, spec: RecordSpec, device: str, *, deferred: bool | None = None
    ) -> None:
        self._config = config
        self._rule = rule
        self._device = torch.device(device)
        self._deferred = self._device.type != "cpu" if deferred is None else deferred
        self._staging = Staging(spec, self._device)
        warm_up()
        self._normalisers = [module for module in rule.modules() if isinstance(module, Normaliser)]
        for optimizer in rule.optimizers.values():
            optimizer.check_valid()
            optimizer.checks = not self._deferred
        # An optimizer that checks leaves nothing to undo, unless another has stepped before it.
        self._undo = Undo(self._changing()) if self._deferred or len(rule.optimizers) > 1 else None
        self._replicas: Replicas = ALONE
        self._under_way: UnderWay | None = None
        self._updates = self._version = 0
        self._skipped = self._skipped_in_row = 0
        self._diagnostics: dict[str, list[Tensor | float]] = defaultdict(list)
        self._bad_batch: SampleBatch | None = None

    def join(self, replicas: Replicas) -> None:
        """Make updates together with others from now on; see Learner.join."""
        self._rule.join(replicas)
        self._replicas = replicas

    @property
    def updates(self) -> int:
        """Updates made, skipped ones included."""
        return self._updates

    @property
    def skipped_updates(self) -> int:
        """Updates that were skipped for values that are not finite."""
        return self._skipped

    @property
    def bad_batch(self) -> SampleBatch | None:
        """The newest batch whose update was skipped."""
        return self._bad_batch

    def step(self, batch: SampleBatch) -> StepOutput | None:
        """One update from B records; see Learner.step."""
        self._updates += 1
        if not self._deferred:
            return self._account(self._update_and_look(batch))
        before, self._under_way = self._under_way, None
        self._under_way = UnderWay(batch, *self._update_on_device(batch))
        return None if before is None else self._account(before.finish())

    def drain(self) -> StepOutput | None:
        """Wait for the update under way; see Learner.drain."""
        before, self._under_way = self._under_way, None
        return None if before is None else self._account(before.finish())

    def take_metrics(self) -> dict[str, float]:
        """Means of the diagnostics since the last call; those of skipped updates, which are not finite, left out."""
        taken, self._diagnostics = self._diagnostics, defaultdict(list)
        metrics = {}
        for name, numbers in taken.items():
            values = torch.stack([torch.as_tensor(number, dtype=torch.float32) for number in numbers]).cpu().numpy()
            if np.isfinite(values).any():
                metrics[name] = float(values[np.isfinite(values)].mean())
        return metrics

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new running moments; see Learner.set_moments."""
        for normaliser in self._normalisers:
            normaliser.set_moments(moments)

    def snapshot(self) -> WeightSnapshot:
        """The acting network as the next version."""
        self._version += 1
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self._rule.acting.state_dict().items()}
        return WeightSnapshot.of(self._version, arrays)

    def skip_versions(self, version: int) -> None:
        """Snapshots from now on have versions above this one."""
        self._version = max(self._version, version)

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, optimizers, generator and counters as named tensors."""
        state: dict[str, Tensor] = dict(self._rule.state_dict())
        for name, optimizer in self._rule.optimizers.items():
            state |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state_dict().items()}
        if self._rule.generator is not None:
            state["generator"] = self._rule.generator.get_state()
        state["counters"] = torch.tensor(
            [self._updates, self._version, self._skipped, self._skipped_in_row], dtype=torch.int64
        )
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict` bit for bit; on another kind of device with other noise."""
        own = {"generator", "counters"}
        self._rule.load_state_dict(
            {name: v for name, v in state.items() if name not in own and not name.startswith("optimizer.")}
        )
        for name, optimizer in self._rule.optimizers.items():
            prefix = f"optimizer.{name}."
            optimizer.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        if self._rule.generator is not None:
            continue_generator(self._rule.generator, state["generator"])
        self._updates, self._version, self._skipped, self._skipped_in_row = (int(n) for n in state["counters"])

    def _update(self, batch: SampleBatch) -> Tensor | None:
        """The rule's update, its diagnostics noted when due; errors [B]."""
        beta = self._config.beta(batch.inserted)
        t, weights = self._staging(batch, importance_weights(batch, beta))
        if self._normalisers:
            t["reward"] = self._normalisers[0].reward(t["reward"])
        for optimizer in self._rule.optimizers.values():
            optimizer.schedule(batch.inserted)
        diagnose = self._updates % self._config.diagnose_every_updates == 0
        updated = self._rule.update(t, weights, number=self._updates, diagnose=diagnose)
        if diagnose:
            self._note("learning_rate", self._config.rate(batch.inserted))
            self._note("importance_beta", beta)
            self._note("sampling_weight", weights.mean())
            for name, optimizer in self._rule.optimizers.items():
                self._note(f"gradient_norm_{name}", optimizer.gradient_norm.clone())
            for name, value in updated.diagnostics.items():
                self._note(name, value.detach())
        return None if updated.errors is None else updated.errors.detach()

    def _note(self, name: str, value: Tensor | float) -> None:
        self._diagnostics[name].append(value)

    def _update_and_look(self, batch: SampleBatch) -> Finished:
        undo = self._undo if self._rule.steps(self._updates) > 1 else None
        if undo is not None:
            undo.save()
        try:
            errors = self._update(batch)
            if errors is None:
                return Finished(batch, True, None)
            priorities = errors.numpy() + np.float64(self._config.priority_epsilon)
            if self._replicas.all(math.isfinite(priorities.sum())):  # they are all >= 0
                return Finished(batch, True, priorities)
        except NotFinite:
            pass
        if undo is not None:
            undo.restore()
        return Finished(batch, False, None)

    def _update_on_device(self, batch: SampleBatch) -> tuple[Tensor, Tensor | None]:
        """Update, and take it back where it was not finite; bool[] whether it was, and priorities float64[B]."""
        assert self._undo is not None
        self._undo.save()
        errors = self._update(batch)
        priorities = None if errors is None else errors.double() + self._config.priority_epsilon
        looked_at = [
            health.view(1) for optimizer in self._rule.optimizers.values() for health in optimizer.take_health()
        ]
        if priorities is not None:
            looked_at.append(priorities.float())
        finite = self._replicas.everywhere(torch.isfinite(torch.cat(looked_at)).all())
        self._undo.restore_unless(finite)
        return finite, priorities

    def _changing(self) -> Iterator[Tensor]:
        """Not fixed tables, which are large, nor running moments, which come from outside."""
        moments = {id(buffer) for module in self._normalisers for buffer in module.buffers()}
        yield from (t for t in self._rule.state_dict(keep_vars=True).values() if id(t) not in moments)
        for optimizer in self._rule.optimizers.values():
            yield from optimizer.state_dict().values()

    def _account(self, finished: Finished) -> StepOutput | None:
        if finished.finite:
            self._skipped_in_row = 0
            return None if finished.priorities is None else StepOutput(finished.batch.keys, finished.priorities)
        self._bad_batch = finished.batch
        self._skipped += 1
        self._skipped_in_row += 1
        if self._skipped_in_row >= self._config.max_skipped_updates:
            raise Diverged(
                f"update {self._updates}: loss, value or gradient was not finite {self._skipped_in_row} times in a "
                "row; lower algorithm.learning_rate or algorithm.reward_scale, or look at the environment's rewards"
            )
        return None
