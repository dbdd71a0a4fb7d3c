"""Golden values from the papers' formulas in plain Python: `python tests/golden/make_formulas.py` writes formulas.json.

For what no maintained package computes: SlateQ (Ie et al. 2019), with the best slate found by trying them all, and the
top-K correction (Chen et al. 2019), whose gradient is a difference quotient of the chance 1 - (1 - pi)^K of showing an
item. numpy only draws the inputs.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from writing import case, write

SIZE, CANDIDATES, SLOTS, DRAWS, STEP = 5, 6, 3, 4, 1e-6


def slate_value(q: list[float], scores: list[float], slate: tuple[int, ...]) -> float:
    """Sum over the slate and nothing (the last) of the chance to be chosen times the value."""
    shown = [*slate, len(q) - 1]
    total = sum(scores[i] for i in shown)
    return sum(scores[i] / total * q[i] for i in shown)


def slateq(rng: np.random.Generator) -> dict[str, Any]:
    """Values of given and of best slates, the temporal-difference error, and the likelihood of responses."""
    outcomes = CANDIDATES + 1
    q_tm1, q_t, logits = (rng.normal(size=(SIZE, outcomes)) for _ in range(3))
    scores = np.exp(logits)
    slates = [tuple(rng.permutation(CANDIDATES)[:SLOTS].tolist()) for _ in range(SIZE)]
    chosen = [None, 0, 2, 1, None]
    response = [[1.0 if place == at else 0.0 for place in range(SLOTS)] for at in chosen]
    outcome = [CANDIDATES if at is None else slate[at] for slate, at in zip(slates, chosen, strict=True)]
    r_t, discount_t = rng.normal(size=SIZE), np.array([0.9, 0.0, 0.81, 0.9, 0.9])
    values = [slate_value(q_t[b].tolist(), scores[b].tolist(), slates[b]) for b in range(SIZE)]
    best = [
        max(
            itertools.combinations(range(CANDIDATES), SLOTS),
            key=lambda slate, b=b: slate_value(q_t[b].tolist(), scores[b].tolist(), slate),
        )
        for b in range(SIZE)
    ]
    best_values = [slate_value(q_t[b].tolist(), scores[b].tolist(), best[b]) for b in range(SIZE)]
    errors = [r_t[b] + discount_t[b] * best_values[b] - q_tm1[b, outcome[b]] for b in range(SIZE)]
    likelihood = [
        math.log(sum(scores[b, i] for i in (*slates[b], CANDIDATES))) - logits[b, outcome[b]] for b in range(SIZE)
    ]
    inputs = {
        "q_tm1": q_tm1, "q_t": q_t, "logits": logits, "slate": np.array(slates), "response": np.array(response),
        "r_t": r_t, "discount_t": discount_t,
    }  # fmt: skip
    outputs = {
        "outcome": np.array(outcome), "value": np.array(values), "best_slate": np.array(best),
        "best_value": np.array(best_values), "td_error": np.array(errors), "choice_loss": np.array(likelihood),
    }  # fmt: skip
    return case(inputs, outputs)


def shown_reward(logits: list[float], rewards: list[float]) -> float:
    """Sum of r_i times the chance that K independent draws from the softmax hold item i."""
    total = sum(math.exp(value) for value in logits)
    return sum(r * (1.0 - (1.0 - math.exp(v) / total) ** DRAWS) for v, r in zip(logits, rewards, strict=True))


def top_k(rng: np.random.Generator) -> dict[str, Any]:
    """The gradient of the reward of the K items shown, by each item's logit."""
    logits, rewards = rng.normal(size=7).tolist(), rng.uniform(0.0, 5.0, 7).tolist()
    gradient = []
    for item in range(len(logits)):
        up, down = list(logits), list(logits)
        up[item] += STEP
        down[item] -= STEP
        gradient.append((shown_reward(up, rewards) - shown_reward(down, rewards)) / (2.0 * STEP))
    inputs = {"logits": np.array(logits), "rewards": np.array(rewards), "k": DRAWS}
    return case(inputs, {"gradient": np.array(gradient)})


def main() -> None:
    """Both into one file."""
    rng = np.random.default_rng(0)
    write("formulas", (), {"slateq": slateq(rng), "top_k": top_k(rng)})


if __name__ == "__main__":
    main()
