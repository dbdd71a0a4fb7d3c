"""NextItem: one user's topics and items, what two policies showed him, and how likely the next topics were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from drawing import DARK, LIGHT, WARM, plain, save
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray

from actors.envs.next_item import NextItemVectorEnv

SEED = 8
POLICIES = ("per-user bandit", "myopic oracle")
STEPS = 30


def trajectory(policy: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Topics consumed from, topics shown and rewards of the user's episode, [30] each."""
    env = NextItemVectorEnv(1, None)
    acting: Any = env.baselines()[policy](env)
    observation, _ = env.reset(seed=SEED)
    consumed, shown, rewards = [], [], []
    for _ in range(STEPS):
        action = acting.act(observation["history"], np.random.default_rng(0), explore=False, env_steps=0)
        observation, reward, *_ = env.step(action.action)
        if hasattr(acting, "observe"):
            acting.observe(action, _Told(reward))
        consumed.append(int(env.simulation.topic[0]))
        shown.append(int(env.simulation.catalogue.topic_of[action.action[0]]))
        rewards.append(reward[0])
    return np.array(consumed), np.array(shown), np.array(rewards)


class _Told:
    """What a baseline is told of a step that ended no episode."""

    def __init__(self, reward: NDArray[np.float32]) -> None:
        self.reward = reward
        self.valid = np.ones(1, dtype=np.bool_)
        self.terminated = self.truncated = np.zeros(1, dtype=np.bool_)


def draw(path: Path) -> None:
    """The user's topics with those shown by two policies, and the matrix his topics follow."""
    figure, panels = pyplot.subplots(1, 3, figsize=(10.6, 3.6), layout="constrained", width_ratios=[1, 1, 0.85])
    for axes, policy in zip(panels, POLICIES, strict=False):
        consumed, shown, rewards = trajectory(policy)
        show(axes, consumed, shown, rewards)
        axes.set_title(f"{policy}: {rewards.sum():.0f} clicks", fontsize=10, loc="left")
    panels[0].set_ylabel("topic")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    panels[2].imshow(np.sqrt(NextItemVectorEnv(1).simulation.chain.matrix), cmap="Blues")
    panels[2].set_title("next topic (column) by topic (row)", fontsize=10, loc="left")
    panels[2].set_xticks(range(0, 20, 5))
    panels[2].set_yticks(range(0, 20, 5))
    save(figure, path)


def show(axes: Axes, consumed: NDArray[np.int64], shown: NDArray[np.int64], rewards: NDArray[np.float32]) -> None:
    """The topics of what was consumed as a line, and a point a step for what was shown."""
    steps = np.arange(len(consumed))
    axes.step(steps, consumed, where="mid", color=LIGHT, linewidth=2, label="topic of the consumed item")
    for clicked, colour, name in ((0.0, WARM, "shown, not clicked"), (1.0, DARK, "shown and clicked")):
        at = rewards == clicked
        axes.scatter(steps[at], shown[at], color=colour, s=22, zorder=3, label=name)
    axes.set_ylim(19.7, -0.7)
    axes.set_yticks(range(0, 20, 5))
    axes.set_xlabel("step of the episode")
    plain(axes)
