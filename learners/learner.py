"""The contract of a learner: one update a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from learners.replicas import Replicas
from learners.weights import WeightSnapshot
from replay_server.batches import SampleBatch


@dataclass(frozen=True)
class StepOutput:
    """What a finished update gives back to the replay.

    Attributes:
        keys: KEY_DTYPE[B], of the batch that was learnt from.
        priorities: float64[B], |error| + epsilon: finite, >= 0.
    """

    keys: NDArray[Any]
    priorities: NDArray[Any]


class Learner(Protocol):
    """Owns networks and optimizers; holds no replay handle and no weight sink.

    The loop it lives in::

        output = learner.step(replay.sample(batch_size))
        if output is not None:
            replay.update_priorities(output.keys, output.priorities)
        sink.publish(learner.snapshot())

    On a GPU nothing waits for the device: what a step gives back is that of an earlier one, and the last is fetched
    by `drain`.
    """

    def join(self, replicas: Replicas) -> None:
        """Make every update together with others from now on; all join before the first one.

        A batch then is this one's part, of the same size in each, and what comes of it is what one learner would have
        made of all parts.

        Raises:
            ConfigError: the settings do not allow for so many.
        """

    @property
    def updates(self) -> int:
        """Updates made."""

    @property
    def skipped_updates(self) -> int:
        """Those of `updates` that were skipped for values that are not finite."""

    @property
    def bad_batch(self) -> SampleBatch | None:
        """The newest batch whose update was skipped."""

    def step(self, batch: SampleBatch) -> StepOutput | None:
        """One update from B records.

        Returns:
            What the newest finished update gives back; None where none has finished or it has no priorities.

        Raises:
            Diverged: too many updates in a row were skipped for values that are not finite.
        """

    def drain(self) -> StepOutput | None:
        """Wait for the device and return what is still to be given back."""

    def take_metrics(self) -> dict[str, float]:
        """Means of the diagnostics since the last call; waits for the device."""

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new running moments: `observation_mean`, `observation_std` and `return_std`, each optional."""

    def snapshot(self) -> WeightSnapshot:
        """The acting weights as the next version."""

    def skip_versions(self, version: int) -> None:
        """Snapshots from now on have versions above this one."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything a bit-exact continuation needs, as named tensors."""

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None: ...
