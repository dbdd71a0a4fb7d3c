"""ProtoAction: one user's 20 steps under the nearest item, the myopic oracle and a plan, with much satiation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from drawing import DARK, GREY, LIGHT, WARM, plain, save
from matplotlib import pyplot
from numpy.typing import NDArray

from actors.envs.proto_action import ProtoActionVectorEnv

SEED = 8
LAM = 0.8
POLICIES = {"nearest to the taste": WARM, "myopic oracle": LIGHT, "planning oracle": DARK}


def trajectory(policy: str) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Item ids, the items' nearness to the taste, satiation with them and rewards of the user's episode, [20] each."""
    env = ProtoActionVectorEnv(1, lam=LAM, actions="items")
    observation, _ = env.reset(seed=SEED)
    act = env.baselines()[policy](env).act
    state, items = env.simulation.state, env.simulation.catalogue.items
    ids, near, sated, rewards = [], [], [], []
    for _ in range(20):
        action = act(observation, np.random.default_rng(0), explore=False, env_steps=0).action
        item = items[action[0]]
        near.append(state.taste[0] @ item)
        sated.append(LAM * state.satiation[0] @ item)
        observation, reward, *_ = env.step(action)
        ids.append(int(action[0]))
        rewards.append(reward[0])
    return np.array(ids), np.array(near), np.array(sated), np.array(rewards)


def draw(path: Path) -> None:
    """Above what the user likes of each item and what satiation takes from it; below the rewards summed up."""
    figure, panels = pyplot.subplots(
        4, 1, figsize=(8.4, 7.2), sharex=True, layout="constrained", height_ratios=[1, 1, 1, 1.1]
    )
    steps = np.arange(1, 21)
    for axes, (policy, colour) in zip(panels, POLICIES.items(), strict=False):
        ids, near, sated, rewards = trajectory(policy)
        axes.plot(steps, near, color=colour, marker="o", markersize=4, label="u.v, what the user likes")
        axes.fill_between(steps, near - sated, near, color=GREY, alpha=0.45, label="lam m.v, what satiation takes")
        axes.set_ylim(-0.15, 1.0)
        title = f"{policy}: {len(set(ids))} different items, return {rewards.sum():.1f}"
        axes.set_title(title, fontsize=10, loc="left")
        plain(axes)
        panels[3].plot(steps, np.cumsum(rewards), color=colour, label=policy)
    panels[0].legend(loc="lower right", frameon=False, fontsize=8, ncols=2)
    plain(panels[3])
    panels[3].set_ylabel("reward so far")
    panels[3].set_xlabel("step of the episode")
    panels[3].set_xticks(range(0, 21, 2))
    panels[3].legend(frameon=False, fontsize=8)
    save(figure, path)
