"""Paths of optimizers against torch_optimizer, pytorch_optimizer and torch (`tests/golden/make_optimizers.py`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit.golden import golden, same
from torch import nn

from learners.algorithm import AlgorithmConfig
from learners.optimization.optimizers import Optimizer


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("radam", {"optimizer": "radam"}),
        *(
            (f"lookahead_{kind}", {"optimizer": kind, "lookahead_period_updates": 6})
            for kind in ("adam", "sgd", "radam")
        ),
        *((f"decayed_{kind}", {"optimizer": kind, "weight_decay": 0.1}) for kind in ("adam", "adamw", "radam")),
        ("decayed_sgd", {"optimizer": "sgd", "weight_decay": 0.1, "momentum": 0.9}),
    ],
)
def test_paths(name: str, settings: dict[str, Any]) -> None:
    given, expected = golden("optimizers", name)
    module = nn.ParameterDict({"place": nn.Parameter(given.start.clone())})
    config = AlgorithmConfig(
        learning_rate=given.learning_rate, max_grad_norm=None, lookahead_alpha=given.alpha, **settings
    )
    optimizer = Optimizer(module, config)
    places = []
    for gradient in given.gradients:
        optimizer.minimise((module["place"] * gradient).sum())
        places.append(module["place"].detach().clone())
    same(torch.stack(places), expected.path)
