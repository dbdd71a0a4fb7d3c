"""What holds for the constants of every task."""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral, Real
from typing import Any


def check_kinds(model: Any) -> None:
    """Refuse constants of another kind than their defaults, and NaN and infinity.

    Args:
        model: a dataclass; what has no number and no truth value for a default is not looked at.

    Raises:
        ValueError: naming the first.
    """
    for field in dataclasses.fields(model):
        value, default = getattr(model, field.name), field.default
        if isinstance(default, bool):
            fits, wanted = isinstance(value, bool), "true or false"
        elif isinstance(default, int):
            fits, wanted = isinstance(value, Integral) and not isinstance(value, bool), "a whole number"
        elif isinstance(default, float):
            fits, wanted = isinstance(value, Real) and math.isfinite(value), "a finite number"
        else:
            continue
        if not fits:
            raise ValueError(f"{field.name} is {value!r}, must be {wanted}")
