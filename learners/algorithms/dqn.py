"""Deep Q-networks: Double, dueling, n-step, prioritized (Mnih et al. 2015; van Hasselt et al. 2016; Wang et al. 2016).

The n-step sum and the discount gamma^n x (1 - terminated) come with each record, so one loss serves every n.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from torch import Tensor

from learners.losses.value_learning import huber, q_learning_td_error, squared
from learners.networks.q_network import ReturnModel
from learners.value_learning import ValueConfig


class DQNConfig(ValueConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DQN."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "dqn"
    loss: Annotated[Literal["huber", "mse"], Meta(description="Loss of the temporal-difference error.")] = "huber"
    huber_delta: Annotated[float, Meta(gt=0, description="Error where the Huber loss turns linear.")] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "mse":
            self.refuse_idle("with loss mse", "huber_delta")

    def make_return_model(self) -> ExpectedReturn:
        """One number an action: its expected return."""
        return ExpectedReturn(self)


class ExpectedReturn(ReturnModel):
    """The expected return itself; errors are absolute temporal-difference errors."""

    size = 1

    def __init__(self, config: DQNConfig) -> None:
        super().__init__()
        self._config = config

    def expected(self, outputs: Tensor) -> Tensor:
        """float[B, A, 1] -> float[B, A]."""
        return outputs.squeeze(2)

    def loss(
        self,
        outputs_tm1: Tensor,
        a_tm1: Tensor,
        r_t: Tensor,
        discount_t: Tensor,
        outputs_t: Tensor,
        q_t_selector: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Huber or squared loss of (Double) Q-learning; see ReturnModel.loss."""
        q_tm1, q_t = outputs_tm1.squeeze(2), outputs_t.squeeze(2)
        td_error = q_learning_td_error(q_tm1, a_tm1, r_t, discount_t, q_t, q_t_selector)
        losses = huber(td_error, self._config.huber_delta) if self._config.loss == "huber" else squared(td_error)
        return losses, td_error.detach().abs()
