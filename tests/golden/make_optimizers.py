"""Golden paths of optimizers in float64: `python tests/golden/make_optimizers.py` writes optimizers.json.

    python3.11 -m venv peers/optimizers && peers/optimizers/bin/pip install -r tests/golden/optimizers.requirements.txt

A given gradient each step and where the parameters are afterwards. RAdam is torch_optimizer's, Lookahead is
pytorch_optimizer's around torch's Adam, SGD and RAdam; with weight decay they are torch's, one parameter at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch_optimizer
from pytorch_optimizer import Lookahead
from writing import case, write

STEPS, SIZE, RATE = 20, 4, 0.05
K, ALPHA, DECAY = 6, 0.5, 0.1


def path(make: Any) -> dict[str, Any]:
    """Parameters after every step."""
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=SIZE), rng.normal(size=(STEPS, SIZE)) + 0.5
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, places = make([parameter]), []
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        places.append(parameter.detach().numpy().copy())
    inputs = {
        "start": start,
        "gradients": gradients,
        "learning_rate": RATE,
        "k": K,
        "alpha": ALPHA,
        "weight_decay": DECAY,
    }
    return case(inputs, {"path": np.stack(places)})


def main() -> None:
    """Every case into one file."""
    adam, sgd, radam = torch.optim.Adam, torch.optim.SGD, torch.optim.RAdam
    cases = {"radam": path(lambda parameters: torch_optimizer.RAdam(parameters, lr=RATE))}
    for name, kind in (("adam", adam), ("sgd", sgd), ("radam", radam)):
        cases[f"lookahead_{name}"] = path(
            lambda parameters, kind=kind: Lookahead(
                kind(parameters, lr=RATE), k=K, alpha=ALPHA, pullback_momentum="none"
            )
        )
    for name, kind, further in (
        ("adam", adam, {}), ("adamw", torch.optim.AdamW, {}), ("radam", radam, {}), ("sgd", sgd, {"momentum": 0.9})
    ):  # fmt: skip
        cases[f"decayed_{name}"] = path(
            lambda parameters, kind=kind, further=further: kind(
                parameters, lr=RATE, weight_decay=DECAY, foreach=False, **further
            )
        )
    write("optimizers", ("pytorch-optimizer", "torch-optimizer", "torch"), cases)


if __name__ == "__main__":
    main()
