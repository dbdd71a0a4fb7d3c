"""The contract of an algorithm's own part of a learner: its networks and one update of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from learners.optimization.optimizers import Optimizer


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
        generator: of the update's own noise, on the networks' device; None where it needs none.
    """

    optimizers: dict[str, Optimizer]
    generator: torch.Generator | None = None

    @property
    def acting(self) -> nn.Module:
        """The network that policies act with: its state is what gets published."""
        raise NotImplementedError

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
