"""Two policies show lists to the same users at the same time."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.envs.news_session.environment import NewsSessionVectorEnv
from actors.evaluator import Actor
from actors.interleaving import Comparison, team_draft
from actors.vector_steps import VectorSteps


def compare(env: NewsSessionVectorEnv, first: Any, second: Any, requests: int, seed: int) -> Comparison:
    """Interleave the lists of two policies by team draft and count whose articles are clicked.

    This compares click-through rates, not what users make of it later: both share one user's satisfaction.

    Args:
        env: the users.
        first, second: act as in `evaluator.Actor`; lists of different articles.
        requests: vector steps.
        seed: of users, coins and policies.
    """
    policies: tuple[Actor, Actor] = (first, second)
    steps, rng = VectorSteps(env), np.random.default_rng(seed)
    observation = steps.reset(seed)
    shares, clicked = [], []
    for _ in range(requests):
        lists = [policy.act(observation, rng, explore=False, env_steps=0).action for policy in policies]
        drafted = team_draft(lists[0], lists[1], rng)
        timestep = steps.step(drafted.lists)
        stayed = ~(timestep.terminated | timestep.truncated)  # the next user's response is none of this list
        shares.append(drafted.share[stayed])
        clicked.append(env.simulation.response[stayed] == 1)
        observation = timestep.observation
    return Comparison.of(np.concatenate(shares), np.concatenate(clicked))
