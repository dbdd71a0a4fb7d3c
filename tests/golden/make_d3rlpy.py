"""Golden values of BCQ from d3rlpy in float64: `python tests/golden/make_d3rlpy.py` writes d3rlpy.json.

    python3.11 -m venv peers/d3rlpy && peers/d3rlpy/bin/pip install --no-deps -r tests/golden/d3rlpy.requirements.txt

d3rlpy's functions are called with stand-ins for networks that return given tensors, so that its formulas are what is
compared. d3rlpy squares normalised logits (its policy is a torch Categorical), BCQ's authors the network's own: the
stand-in passes on the network's own.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from d3rlpy.algos.qlearning.torch.bcq_impl import DiscreteBCQImpl
from d3rlpy.models.torch import compute_discrete_imitation_loss, compute_max_with_n_actions, compute_vae_error
from d3rlpy.models.torch.q_functions.utility import compute_huber_loss
from torch.distributions import Normal
from writing import case, value_batch, write

SIZE, ACTION, LATENT, SAMPLES = 6, 2, 4, 5
LAMBDA, FLEXIBILITY, BETA = 0.75, 0.3, 1e-2


def leaf(array: np.ndarray) -> torch.Tensor:
    """A tensor that collects a gradient."""
    return torch.from_numpy(array).requires_grad_()


def vae(rng: np.random.Generator) -> dict[str, Any]:
    """Reconstruction plus half the divergence from a standard normal."""
    action = torch.from_numpy(rng.uniform(-1, 1, (SIZE, ACTION)))
    reconstruction, mean, log_std = (leaf(rng.normal(size=(SIZE, size))) for size in (ACTION, LATENT, LATENT))
    loss = compute_vae_error(
        lambda *_: Normal(mean, log_std.exp()), lambda *_: reconstruction, torch.zeros(SIZE, 3), action, beta=0.5
    )
    loss.backward()
    leaves = {"reconstruction": reconstruction, "mean": mean, "log_std": log_std}
    return case(
        {"action": action, **{name: value.detach() for name, value in leaves.items()}},
        {"loss": loss.item(), **{f"gradient_{name}": value.grad for name, value in leaves.items()}},
    )


def soft_clipped_target(rng: np.random.Generator) -> dict[str, Any]:
    """The best of several actions by a mix of the critics' least and largest values."""
    q_t = torch.from_numpy(rng.normal(size=(2, SIZE, SAMPLES)))
    forwarder = SimpleNamespace(forwarders=[None, None], compute_target=lambda *_: q_t.reshape(2, -1, 1))
    values = compute_max_with_n_actions(torch.zeros(SIZE, 3), torch.zeros(SIZE, SAMPLES, ACTION), forwarder, LAMBDA)
    return case({"q_t": q_t, "lambda": LAMBDA}, {"value": values.squeeze(1)})


def discrete(rng: np.random.Generator) -> dict[str, Any]:
    """Double Q-learning within the actions that the data's policy would take, and the cloning loss beside it."""
    batch = value_batch(rng, SIZE)
    q_tm1, logits_tm1 = leaf(batch["q_tm1"]), leaf(rng.normal(size=batch["q_tm1"].shape) * 1.5)
    logits_t, q_t, selector = (
        torch.from_numpy(array) for array in (rng.normal(size=(SIZE, 4)) * 1.5, batch["q_t"], batch["q_t_selector"])
    )
    chosen = DiscreteBCQImpl.inner_predict_best_action(
        SimpleNamespace(
            _modules=SimpleNamespace(imitator=lambda _: SimpleNamespace(logits=logits_t)),
            _q_func_forwarder=SimpleNamespace(compute_expected_q=lambda _: selector),
            _action_flexibility=FLEXIBILITY,
        ),
        torch.zeros(SIZE, 3),
    )
    rows, action = torch.arange(SIZE), torch.from_numpy(batch["a_tm1"])
    target = torch.from_numpy(batch["r_t"]) + torch.from_numpy(batch["discount_t"]) * q_t[rows, chosen]
    huber = compute_huber_loss(q_tm1[rows, action], target)
    cloning = compute_discrete_imitation_loss(
        lambda _: SimpleNamespace(logits=logits_tm1), torch.zeros(SIZE, 3), action, BETA
    )
    (huber.mean() + cloning.loss).backward()
    inputs = {**batch, "logits_tm1": logits_tm1.detach(), "logits_t": logits_t, "threshold": FLEXIBILITY, "beta": BETA}
    return case(
        inputs,
        {
            "chosen": chosen,
            "huber": huber.detach(),
            "cloning": cloning.loss.item(),
            "nll": cloning.imitation_loss.item(),
            "gradient_q": q_tm1.grad,
            "gradient_logits": logits_tm1.grad,
        },
    )


def main() -> None:
    """Every case into one file."""
    torch.set_default_dtype(torch.float64)
    rng = np.random.default_rng(0)
    cases = {"vae": vae(rng), "soft_clipped_target": soft_clipped_target(rng), "discrete": discrete(rng)}
    write("d3rlpy", ("d3rlpy", "torch"), cases)


if __name__ == "__main__":
    main()
