"""Golden values from rlax in float64: `python tests/golden/make_rlax.py` writes rlax.json.

python3.11 -m venv peers/rlax && peers/rlax/bin/pip install -r tests/golden/rlax.requirements.txt
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rlax
from writing import case, value_batch, write

jax.config.update("jax_enable_x64", True)

ATOMS = np.linspace(-4.0, 6.0, 11)
HUBER_DELTA = 0.7
CAP = 1.5


def weighted(loss: Callable[..., Any], weights: np.ndarray) -> Callable[..., Any]:
    """Mean over records of weight x loss."""
    return lambda *arguments: jnp.mean(weights * loss(*arguments))


def value_learning(cases: dict[str, Any]) -> None:
    """Q-learning, Double Q-learning and their weighted Huber and squared losses."""
    batch = value_batch(np.random.default_rng(0))
    q_tm1, a_tm1, r_t, discount_t = (batch[name] for name in ("q_tm1", "a_tm1", "r_t", "discount_t"))
    single, double = jax.vmap(rlax.q_learning), jax.vmap(rlax.double_q_learning)
    cases["q_learning"] = case(batch, {"td_error": single(q_tm1, a_tm1, r_t, discount_t, batch["q_t"])})

    def td_error(q: Any) -> Any:
        return double(q, a_tm1, r_t, discount_t, batch["q_t"], batch["q_t_selector"])

    def huber(q: Any) -> Any:
        return rlax.huber_loss(td_error(q), HUBER_DELTA)

    def squared(q: Any) -> Any:
        return rlax.l2_loss(td_error(q))

    for name, loss in (("huber", huber), ("squared", squared)):
        mean = weighted(loss, batch["weights"])
        cases[f"double_q_learning_{name}"] = case(
            batch | {"delta": HUBER_DELTA},
            {"td_error": td_error(q_tm1), "loss": loss(q_tm1), "mean": mean(q_tm1), "gradient": jax.grad(mean)(q_tm1)},
        )


def categorical(cases: dict[str, Any]) -> None:
    """C51: the projection by itself, and the loss with the target's own and with another's choice of action."""
    rng = np.random.default_rng(1)
    batch = value_batch(rng)
    size, actions = batch["q_tm1"].shape
    logits_tm1, logits_t = (rng.normal(size=(size, actions, len(ATOMS))) for _ in range(2))
    support = batch["r_t"][:, None] * 3.0 + batch["discount_t"][:, None] * ATOMS
    probabilities = jax.nn.softmax(rng.normal(size=support.shape))
    project = jax.vmap(rlax.categorical_l2_project, (0, 0, None))
    cases["categorical_projection"] = case(
        {"support": support, "probabilities": probabilities, "atoms": ATOMS},
        {"projected": project(support, probabilities, ATOMS)},
    )
    double = jax.vmap(rlax.categorical_double_q_learning, (None, 0, 0, 0, 0, None, 0, 0))
    own = jax.nn.softmax(logits_t) @ ATOMS
    for name, selector in (("", own), ("double_", batch["q_t_selector"])):

        def loss(logits: Any, selector: Any = selector) -> Any:
            return double(ATOMS, logits, batch["a_tm1"], batch["r_t"], batch["discount_t"], ATOMS, logits_t, selector)

        mean = weighted(loss, batch["weights"])
        inputs = {name: batch[name] for name in ("a_tm1", "r_t", "discount_t", "weights")}
        inputs |= {"atoms": ATOMS, "logits_tm1": logits_tm1, "logits_t": logits_t, "q_t_selector": selector}
        cases[f"categorical_{name}q_learning"] = case(
            inputs, {"loss": loss(logits_tm1), "gradient": jax.grad(mean)(logits_tm1)}
        )


def quantile(cases: dict[str, Any]) -> None:
    """QR-DQN with Double Q-learning; rlax has quantiles [N, A], ours are written as [B, A, N]."""
    rng = np.random.default_rng(2)
    batch = value_batch(rng)
    size, actions = batch["q_tm1"].shape
    quantiles = 8
    dist_tm1, dist_t, dist_selector = (rng.normal(size=(size, actions, quantiles)) * 2.0 for _ in range(3))
    tau = (np.arange(quantiles) + 0.5) / quantiles
    learn = jax.vmap(rlax.quantile_q_learning, (0, None, 0, 0, 0, 0, 0, None))

    def turned(array: Any) -> Any:
        return jnp.swapaxes(array, 1, 2)

    for kappa in (1.0, 0.5):

        def loss(dist: Any, kappa: float = kappa) -> Any:
            return learn(
                turned(dist), tau, batch["a_tm1"], batch["r_t"], batch["discount_t"],
                turned(dist_selector), turned(dist_t), kappa,
            )  # fmt: skip

        mean = weighted(loss, batch["weights"])
        inputs = {name: batch[name] for name in ("a_tm1", "r_t", "discount_t", "weights")}
        inputs |= {"quantiles_tm1": dist_tm1, "quantiles_t": dist_t, "quantiles_selector": dist_selector}
        cases[f"quantile_q_learning_{kappa}"] = case(
            inputs | {"kappa": kappa}, {"loss": loss(dist_tm1), "gradient": jax.grad(mean)(dist_tm1)}
        )


def returns(cases: dict[str, Any]) -> None:
    """n-step and discounted returns of one episode that is cut off, and of one that ends."""
    rng = np.random.default_rng(3)
    steps, gamma = 9, 0.9
    for ending, last in (("truncated", gamma), ("terminated", 0.0)):
        r_t, v_t = rng.normal(size=steps), rng.normal(size=steps)
        discount_t = np.full(steps, gamma)
        discount_t[-1] = last
        inputs = {"r_t": r_t, "v_t": v_t, "gamma": gamma}
        for n in (1, 3, 5):
            values = rlax.n_step_bootstrapped_returns(r_t, discount_t, v_t, n)
            cases[f"n_step_{n}_{ending}"] = case(inputs | {"n": n}, {"returns": values})
        values = rlax.discounted_returns(r_t, discount_t, v_t)
        cases[f"discounted_{ending}"] = case(inputs, {"returns": values})


def policy_gradients(cases: dict[str, Any]) -> None:
    """REINFORCE with a baseline, on policy and with capped importance ratios; the entropy; the actor of DPG."""
    rng = np.random.default_rng(4)
    size, actions = 12, 5
    logits, behaviour = rng.normal(size=(size, actions)), rng.normal(size=(size, actions)) * 1.5
    action, returned, baseline = rng.integers(0, actions, size), rng.normal(size=size) * 3.0, rng.normal(size=size)
    log_beta = jax.nn.log_softmax(behaviour)[np.arange(size), action]
    ratio = jax.vmap(rlax.categorical_importance_sampling_ratios)(logits, behaviour, action)
    inputs = {"logits": logits, "action": action, "returns": returned, "baseline": baseline, "log_beta": log_beta}
    for name, weights in (("", jnp.ones(size)), ("_corrected", jnp.minimum(ratio, CAP))):

        def loss(logits: Any, weights: Any = weights) -> Any:
            return rlax.policy_gradient_loss(logits, action, returned - baseline, weights)

        cases[f"policy_gradient{name}"] = case(
            inputs | {"cap": CAP}, {"ratio": ratio, "mean": loss(logits), "gradient": jax.grad(loss)(logits)}
        )

    def entropy_loss(logits: Any) -> Any:
        return rlax.entropy_loss(logits, jnp.ones(size))

    cases["entropy"] = case(
        {"logits": logits}, {"mean": -entropy_loss(logits), "gradient_of_loss": jax.grad(entropy_loss)(logits)}
    )
    observation, width = rng.normal(size=(size, 3)), 6
    actor, first, second = (rng.normal(size=shape) for shape in ((3, 2), (5, width), (width,)))

    def critic(observation: Any, action: Any) -> Any:
        return jnp.tanh(jnp.concatenate([observation, action]) @ first) @ second

    def dpg(actor: Any) -> Any:
        a_t = jnp.tanh(observation @ actor)
        losses = jax.vmap(rlax.dpg_loss)(a_t, jax.vmap(jax.grad(critic, 1))(observation, a_t))
        return jnp.mean(jnp.sum(losses, axis=1))

    inputs = {"observation": observation, "actor": actor, "critic_first": first, "critic_second": second}
    values = jax.vmap(critic)(observation, jnp.tanh(observation @ actor))
    cases["dpg"] = case(inputs, {"q": values, "gradient": jax.grad(dpg)(actor)})


def main() -> None:
    """Every case into one file."""
    cases: dict[str, Any] = {}
    for add in (value_learning, categorical, quantile, returns, policy_gradients):
        add(cases)
    write("rlax", ("rlax", "jax"), cases)


if __name__ == "__main__":
    main()
