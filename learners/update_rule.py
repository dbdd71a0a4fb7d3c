"""The contract of an algorithm's own part of a learner: its networks and one update of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from learners.optimization.optimizers import Optimizer
from learners.replicas import ALONE, Replicas


@dataclass(frozen=True)
class Updated:
    """What one update computed; everything still on the device.

    Attributes:
        errors: float[B], |error| of each record, >= 0, for its next priority; None where records have none.
        diagnostics: scalars [] by name; empty unless asked for.
    """

    errors: Tensor | None
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


def spread(**values: Tensor) -> dict[str, Tensor]:
    """Diagnostics `NAME_mean` and `NAME_std`, scalars [], of each tensor of numbers."""
    moments = {}
    for name, value in values.items():
        moments[f"{name}_std"], moments[f"{name}_mean"] = torch.std_mean(value, correction=0)
    return moments


class UpdateRule(nn.Module):
    """Networks, optimizers and one update. `GradientLearner` does the rest: staging, importance weights, schedules,
    skipping what is not finite, diagnostics, snapshots, checkpoints.

    All state is in submodules, buffers, `optimizers` and `generator`: those are saved and continued bit for bit.
    Nothing in `update` may wait for the device (`.item()`, `.cpu()`, `bool(tensor)`, boolean indexing).

    Attributes:
        optimizers: by name.
        generator: of the update's own noise, on the networks' device; None where it needs none. Its numbers are those
            of the whole batch, the same in every replica.
        replicas: with which updates are made; a mean over the batch needs nothing of them, any other figure of the
            whole batch does.
    """

    optimizers: dict[str, Optimizer]
    generator: torch.Generator | None = None
    replicas: Replicas = ALONE

    @property
    def acting(self) -> nn.Module:
        """The network that policies act with: its state is what gets published."""
        raise NotImplementedError

    def join(self, replicas: Replicas) -> None:
        """Make updates together with others from now on.

        Raises:
            ConfigError: the settings do not allow for so many.
        """
        self.replicas = replicas
        for optimizer in self.optimizers.values():
            optimizer.replicas = replicas

    def normal(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Standard normal numbers for this replica's B records: float32[B, ...]."""
        whole = (self.replicas.count * shape[0], *shape[1:])
        return self.replicas.mine(torch.randn(whole, generator=self.generator, device=device))

    def uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Numbers in [0, 1) for this replica's B records: float32[B, ...]."""
        whole = (self.replicas.count * shape[0], *shape[1:])
        return self.replicas.mine(torch.rand(whole, generator=self.generator, device=device))

    def steps(self, number: int) -> int:
        """How many optimizers may step in update `number`; where only one, a refused step leaves nothing to undo."""
        return len(self.optimizers)

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """Change the networks by one batch.

        Args:
            t: columns of the records, each [B, ...]; rewards already scaled by running moments.
            weights: float32[B], importance weights.
            number: of this update, 1, 2, ...
            diagnose: fill `diagnostics`; else leave them, they cost time.
        """
        raise NotImplementedError
