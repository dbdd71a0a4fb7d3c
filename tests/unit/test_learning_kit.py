"""The kit that other tests rely on notices settings that do nothing."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from kit.learning import COMMON, DISCRETE, every_field_matters
from msgspec import Meta

from learners.algorithms.dqn import DQNConfig


class WithIdleField(DQNConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    idle: Annotated[int, Meta(description="Does nothing.")] = 0


def other_fields() -> set[str]:
    names = {field.name for field in msgspec.structs.fields(DQNConfig)}
    return names - COMMON.keys()


def test_a_field_that_does_nothing_is_noticed() -> None:
    base = WithIdleField(target_update_tau=0.1, max_grad_norm=10.0)
    with pytest.raises(AssertionError, match="idle = 1 changes nothing"):
        every_field_matters(base, DISCRETE, {"idle": 1}, elsewhere=other_fields())


def test_a_field_that_is_left_out_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"no test changes \['idle'\]"):
        every_field_matters(WithIdleField(target_update_tau=0.1), DISCRETE, {}, elsewhere=other_fields())
