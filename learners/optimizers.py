"""Gradient steps: torch's optimizers with a schedule, clipping, and a guard against values that are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from learners.algorithm import AlgorithmConfig


class Optimizer:
    """Steps the parameters of one module.

    Args:
        module: its parameters are stepped.
        config: kind, step size, schedule, weight decay, clipping.
        learning_rate: instead of `config.learning_rate`; the schedule scales it alike.
    """

    def __init__(self, module: nn.Module, config: AlgorithmConfig, *, learning_rate: float | None = None) -> None:
        self._config = config
        self._named = dict(module.named_parameters())
        self._parameters = list(self._named.values())
        self._scale = 1.0 if learning_rate is None else learning_rate / config.learning_rate
        rate = config.learning_rate * self._scale
        self._optimizer: torch.optim.Optimizer = torch.optim.Adam(self._parameters, lr=rate, fused=True)
        self.applied = True

    def schedule(self, position: int) -> None:
        """Set the step size for a place in the run, in environment transitions."""
        self._optimizer.param_groups[0]["lr"] = self._config.rate(position) * self._scale

    def minimise(self, loss: Tensor) -> Tensor:
        """One step against the gradient of `loss` [], skipped when the gradient is not finite.

        Returns:
            float[], the gradient's global norm before clipping. `applied` says whether the step was made.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=self._parameters)  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm, foreach=True)
        self.applied = bool(torch.isfinite(norm + loss.detach()))
        if self.applied:
            self._optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """State of every parameter: `<parameter>.<slot>` -> tensor."""
        return {
            f"{name}.{slot}": value
            for name, parameter in self._named.items()
            for slot, value in self._optimizer.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`."""
        for name, parameter in self._named.items():
            prefix = f"{name}."
            slots = {key.removeprefix(prefix): v.clone() for key, v in state.items() if key.startswith(prefix)}
            slots = {key: value for key, value in slots.items() if "." not in key}
            if slots:
                self._optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in slots.items()
                }
