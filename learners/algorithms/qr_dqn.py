"""Distributional Q-learning by quantile regression, QR-DQN (Dabney et al. 2018)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from torch import Tensor

from learners.losses.distributional import quantile_td
from learners.networks.q_network import ReturnModel
from learners.value_learning import ValueConfig


class QRDQNConfig(ValueConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of QR-DQN."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "qr_dqn"
    quantiles: Annotated[int, Meta(ge=1, description="Equally likely values that stand for a return.")] = 50
    kappa: Annotated[
        float, Meta(ge=0, description="Error where the quantile Huber loss turns linear; 0: plain quantile regression.")
    ] = 1.0

    def make_return_model(self) -> QuantileReturn:
        """Quantiles of the return."""
        return QuantileReturn(self)


class QuantileReturn(ReturnModel):
    """Quantiles of the return at (2i + 1) / 2N.

    Errors are the mean |target - prediction| of equal quantiles: like DQN's errors they are in units of the return and
    vanish where the prediction is right, and with one quantile they are the same.
    """

    def __init__(self, config: QRDQNConfig) -> None:
        super().__init__()
        self.size = config.quantiles
        self._kappa = config.kappa

    def expected(self, outputs: Tensor) -> Tensor:
        """float[B, A, N] -> float[B, A]."""
        return outputs.mean(dim=2)

    def loss(
        self,
        outputs_tm1: Tensor,
        a_tm1: Tensor,
        r_t: Tensor,
        discount_t: Tensor,
        outputs_t: Tensor,
        q_t_selector: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Quantile Huber loss, and the distance of the distributions; see ReturnModel.loss."""
        return quantile_td(outputs_tm1, a_tm1, r_t, discount_t, outputs_t, q_t_selector, self._kappa)
