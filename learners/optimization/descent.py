"""How a gradient becomes a step: Adam, AdamW, RAdam and SGD on one vector, and Lookahead around any of them.

All state, counts included, is in tensors on the parameters' device: nothing waits for it, and an update that is
taken back takes all of it back.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from learners.algorithm import AlgorithmConfig

_BETAS = (0.9, 0.999)
_RADAM_LEAST = 5.0  # length of the moving average from which its variance can be rectified


class Descent(Protocol):
    """Changes a vector of parameters by its gradient.

    Attributes:
        state: tensors by name, changed in place.
    """

    state: dict[str, Tensor]

    def step(self, vector: Tensor, gradient: Tensor, rate: float) -> None:
        """One step in place; may overwrite the gradient."""


class Adam:
    """Adam (Kingma and Ba 2015), or with `decoupled` weight decay AdamW (Loshchilov and Hutter 2019); one kernel."""

    def __init__(self, vector: Tensor, *, weight_decay: float, epsilon: float, decoupled: bool) -> None:
        self.state = _moments(vector) | {"step": torch.zeros((), device=vector.device)}
        self._weight_decay, self._epsilon = weight_decay, epsilon
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    def step(self, vector: Tensor, gradient: Tensor, rate: float) -> None:
        """See Descent.step."""
        state = self.state
        state["step"].add_(1.0)
        self._kernel(
            [vector], [gradient], [state["first"]], [state["second"]], [], [state["step"]],
            lr=rate, beta1=_BETAS[0], beta2=_BETAS[1], weight_decay=self._weight_decay, eps=self._epsilon,
            amsgrad=False, maximize=False,
        )  # fmt: skip


class RAdam:
    """Rectified Adam (Liu et al. 2020); the decay of weights is part of the gradient.

    Until the moving average of squares is long enough the step is that of momentum alone.
    """

    def __init__(self, vector: Tensor, *, weight_decay: float, epsilon: float) -> None:
        # float64: rho is the difference of two numbers that are nearly equal in the first steps
        self.state = _moments(vector) | {"step": torch.zeros((), dtype=torch.float64, device=vector.device)}
        self._weight_decay, self._epsilon = weight_decay, epsilon

    def step(self, vector: Tensor, gradient: Tensor, rate: float) -> None:
        """See Descent.step."""
        (beta1, beta2), state = _BETAS, self.state
        if self._weight_decay:
            gradient.add_(vector, alpha=self._weight_decay)
        state["first"].lerp_(gradient, 1.0 - beta1)
        state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        t = state["step"].add_(1.0)
        unbias1, unbias2 = 1.0 - beta1**t, 1.0 - beta2**t
        longest = 2.0 / (1.0 - beta2) - 1.0
        rho = longest - 2.0 * t * (1.0 - unbias2) / unbias2
        rectified = rho > _RADAM_LEAST
        rho = rho.clamp(min=_RADAM_LEAST)
        factor = (rho - 4.0) * (rho - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * rho)
        adaptive = (factor * unbias2).sqrt() / (state["second"].sqrt() + self._epsilon)
        vector.sub_(state["first"] * (torch.where(rectified, adaptive, 1.0) * (rate / unbias1)))


class SGD:
    """Stochastic gradient descent with momentum; the decay of weights is part of the gradient."""

    def __init__(self, vector: Tensor, *, weight_decay: float, momentum: float) -> None:
        self.state = {"velocity": torch.zeros_like(vector)} if momentum else {}
        self._weight_decay, self._momentum = weight_decay, momentum

    def step(self, vector: Tensor, gradient: Tensor, rate: float) -> None:
        """See Descent.step."""
        if self._weight_decay:
            gradient.add_(vector, alpha=self._weight_decay)
        if self._momentum:
            gradient = self.state["velocity"].mul_(self._momentum).add_(gradient)
        vector.sub_(gradient, alpha=rate)


class Lookahead:
    """Every `period` steps goes back to where it began, plus `alpha` of the way (Zhang et al. 2019).

    Args:
        inner: makes the steps between.
        vector: the parameters; the slow weights start as they are.
        period: steps between two looks back.
        alpha: in (0, 1], share of the way that is kept.
    """

    def __init__(self, inner: Descent, vector: Tensor, *, period: int, alpha: float) -> None:
        self._inner, self._period, self._alpha = inner, period, alpha
        self._own = {"slow": vector.clone(), "steps": torch.zeros((), dtype=torch.int64, device=vector.device)}
        self.state = inner.state | self._own

    def step(self, vector: Tensor, gradient: Tensor, rate: float) -> None:
        """See Descent.step."""
        self._inner.step(vector, gradient, rate)
        slow, steps = self._own["slow"], self._own["steps"].add_(1)
        due = (steps % self._period == 0).to(vector.dtype)
        slow.lerp_(vector, due * self._alpha)
        vector.lerp_(slow, due)


def make_descent(config: AlgorithmConfig, vector: Tensor) -> Descent:
    """What `config.optimizer` names, for a vector of parameters."""
    inner = _make_inner(config, vector)
    if config.lookahead_period_updates is None:
        return inner
    return Lookahead(inner, vector, period=config.lookahead_period_updates, alpha=config.lookahead_alpha)


def _make_inner(config: AlgorithmConfig, vector: Tensor) -> Descent:
    decay, epsilon = config.weight_decay, config.adam_epsilon
    match config.optimizer:
        case "adam" | "adamw":
            return Adam(vector, weight_decay=decay, epsilon=epsilon, decoupled=config.optimizer == "adamw")
        case "radam":
            return RAdam(vector, weight_decay=decay, epsilon=epsilon)
        case "sgd":
            return SGD(vector, weight_decay=decay, momentum=config.momentum)


def _moments(vector: Tensor) -> dict[str, Tensor]:
    return {"first": torch.zeros_like(vector), "second": torch.zeros_like(vector)}
