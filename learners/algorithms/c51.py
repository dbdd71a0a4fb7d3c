"""Distributional Q-learning on a fixed support, C51 (Bellemare et al. 2017)."""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from learners.losses.distributional import categorical_td
from learners.networks.q_network import ReturnModel
from learners.value_learning import ValueConfig


class C51Config(ValueConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of C51."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "c51"
    atoms: Annotated[int, Meta(ge=2, description="Values on the support.")] = 51
    v_min: Annotated[float, Meta(description="Smallest return, in units of the scaled reward.")] = -10.0
    v_max: Annotated[float, Meta(description="Largest return, in units of the scaled reward.")] = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.v_min >= self.v_max:
            raise ValueError(f"v_min ({self.v_min}) is not below v_max ({self.v_max})")

    def make_return_model(self) -> CategoricalReturn:
        """Logits of the atoms."""
        return CategoricalReturn(self)


class CategoricalReturn(ReturnModel):
    """Logits of a distribution on the support.

    Errors are Kullback-Leibler divergences of the target from the prediction, as in Rainbow (Hessel et al. 2018): the
    loss less the target's own entropy, so a record whose reward is mere chance is not drawn for ever.
    """

    support: Tensor

    def __init__(self, config: C51Config) -> None:
        super().__init__()
        self.size = config.atoms
        support = torch.linspace(config.v_min, config.v_max, config.atoms)
        self.register_buffer("support", support, persistent=False)

    def expected(self, outputs: Tensor) -> Tensor:
        """float[B, A, Z] -> float[B, A]."""
        return outputs.softmax(dim=2) @ self.support

    def loss(
        self,
        outputs_tm1: Tensor,
        a_tm1: Tensor,
        r_t: Tensor,
        discount_t: Tensor,
        outputs_t: Tensor,
        q_t_selector: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy to the projected target, and its divergence; see ReturnModel.loss."""
        return categorical_td(outputs_tm1, a_tm1, r_t, discount_t, outputs_t, q_t_selector, self.support)
