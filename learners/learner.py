"""The contract of a learner: one update a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learners.weights import WeightSnapshot
from replay_server.batches import SampleBatch


@dataclass(frozen=True)
class StepOutput:
    """Result of one update: new priorities float64[B] (|delta| + epsilon, finite, >= 0) and scalar metrics."""

    priorities: NDArray[np.float64]
    metrics: Mapping[str, float]


class Learner(Protocol):
    """Owns networks and optimizer; holds no replay handle and no weight sink.

    The loop it lives in::

        batch = replay.sample(batch_size)
        output = learner.step(batch)
        replay.update_priorities(batch.keys, output.priorities)
        sink.publish(learner.snapshot())
    """

    @property
    def updates(self) -> int:
        """Updates made."""

    def step(self, batch: SampleBatch) -> StepOutput: ...

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new running moments: `observation_mean`, `observation_std` and `return_std`, each optional."""

    def snapshot(self) -> WeightSnapshot:
        """The acting weights as the next version."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything a bit-exact continuation needs, as named tensors."""

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None: ...
