"""Golden values of other libraries: `tests/golden/<package>.json`, written by `make_<package>.py` beside it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

_DIRECTORY = Path(__file__).resolve().parents[1] / "golden"


def golden(package: str, name: str) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Inputs and outputs of one case: arrays as float64 or int64 tensors, numbers as they are."""
    case = json.loads((_DIRECTORY / f"{package}.json").read_text())["cases"][name]
    return _namespace(case["inputs"]), _namespace(case["outputs"])


def same(ours: torch.Tensor, theirs: torch.Tensor | float) -> None:
    """Fail unless shape and values agree to 1e-5."""
    theirs = torch.as_tensor(theirs, dtype=ours.dtype)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.detach().numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5)


def gradient(loss: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The gradient of a loss []."""
    return torch.autograd.grad(loss, parameter)[0]


def single(*cases: SimpleNamespace) -> tuple[SimpleNamespace, ...]:
    """The same in float32, for networks, whose observations are float32 whatever the rest is."""
    return tuple(SimpleNamespace(**{name: _single(value) for name, value in vars(case).items()}) for case in cases)


def _single(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _single(inner) for name, inner in value.items()}
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _namespace(values: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{name: _tensors(value) for name, value in values.items()})


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tensors(inner) for name, inner in value.items()}
    if not isinstance(value, list):
        return value
    array = np.asarray(value)
    return torch.from_numpy(array.astype(np.float64) if array.dtype.kind == "f" else array)
