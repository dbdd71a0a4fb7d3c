"""Gradient steps of one module: backward pass, check, clipping, descent, state."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from learners.algorithm import AlgorithmConfig
from learners.optimization.descent import make_descent
from learners.optimization.flat import flatten, views
from learners.replicas import ALONE, Replicas

_NORM_EPSILON = 1e-6


class NotFinite(Exception):
    """A loss or its gradient is not finite; the module has not been changed."""


class Optimizer:
    """Steps the parameters of one module.

    The parameters that take gradients are moved into one vector, and their gradients into another: make it when the
    module is on its device, and make one for each parameter. Gradients of other modules are neither computed nor
    touched.

    Args:
        module: its parameters are stepped.
        config: kind, step size, schedule, weight decay, clipping.
        learning_rate: instead of `config.learning_rate`; the schedule scales it alike.

    Attributes:
        checks: whether a loss that is not finite is refused at once, which waits for the device. Otherwise every
            step is made, and whoever set this looks at `unhealthy` and takes back what must not stay.
        replicas: step the same parameters by the mean of everyone's gradients; check and clipping are of that mean.
        gradient_norm: float[], global norm of the newest gradient before clipping; the next step overwrites it.
    """

    def __init__(self, module: nn.Module, config: AlgorithmConfig, *, learning_rate: float | None = None) -> None:
        self._config = config
        self._parameters = tuple(parameter for parameter in module.parameters() if parameter.requires_grad)
        self._vector = flatten(self._parameters)
        self._gradient = torch.zeros_like(self._vector)
        self._one = torch.ones((), device=self._vector.device)
        for parameter, view in zip(self._parameters, views(self._gradient, self._parameters), strict=True):
            parameter.grad = view
        self._descent = make_descent(config, self._vector)
        self._scale = 1.0 if learning_rate is None else learning_rate / config.learning_rate
        self._rate = config.learning_rate * self._scale
        self.checks = True
        self.replicas: Replicas = ALONE
        self.gradient_norm = torch.zeros((), device=self._vector.device)
        self._health: list[Tensor] = []

    def schedule(self, position: int) -> None:
        """Set the step size for a place in the run, in environment transitions."""
        self._rate = self._config.rate(position) * self._scale

    def minimise(self, loss: Tensor) -> None:
        """One step against the gradient of `loss` [].

        Raises:
            NotFinite: loss or gradient is not finite; nothing has changed. Only where `checks` is on.
        """
        self._gradient.zero_()
        _backward(loss, self._one, self._parameters)
        loss = self.replicas.average(self._gradient, loss)
        norm = torch.linalg.vector_norm(self._gradient)
        if self.checks:
            self._check_and_clip(loss, norm.item())
        else:
            self._clip(loss, norm)
        self.gradient_norm.copy_(norm)
        self._descent.step(self._vector, self._gradient, self._rate)

    def take_health(self) -> list[Tensor]:
        """A number [] for each step since the last call, finite where loss and gradient were; empty with `checks`."""
        taken, self._health = self._health, []
        return taken

    def check_valid(self) -> None:
        """Raises ValueError when the parameters have been moved away since: no step would reach them."""
        for parameter, view in zip(self._parameters, views(self._vector, self._parameters), strict=True):
            if parameter.data_ptr() != view.data_ptr():
                raise ValueError("a parameter was moved, or given to a second Optimizer, after its Optimizer was made")

    def state_dict(self) -> dict[str, Tensor]:
        """Moments, slow weights, counts and the gradient's norm by name; shares memory."""
        return {**self._descent.state, "gradient_norm": self.gradient_norm}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`.

        Raises:
            KeyError: something is missing.
            ValueError: something is of another shape.
        """
        for name, tensor in self.state_dict().items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(state[name])

    def _check_and_clip(self, loss: Tensor, norm: float) -> None:
        if not math.isfinite(norm + loss.item()):
            raise NotFinite
        most = self._config.max_grad_norm
        if most is not None and norm > most:
            self._gradient.mul_(most / (norm + _NORM_EPSILON))

    def _clip(self, loss: Tensor, norm: Tensor) -> None:
        self._health.append(norm + loss.detach())
        if self._config.max_grad_norm is not None:
            self._gradient.mul_((self._config.max_grad_norm / (norm + _NORM_EPSILON)).clamp(max=1.0))


def _backward(loss: Tensor, one: Tensor, parameters: tuple[nn.Parameter, ...]) -> None:
    """`torch.autograd.backward` without its checks in Python, which cost as much as two steps of Adam."""
    engine = Variable._execution_engine
    engine.run_backward((loss,), (one,), False, False, parameters, allow_unreachable=True, accumulate_grad=True)
