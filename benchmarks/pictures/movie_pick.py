"""MoviePick: one user's 100 steps under the most popular film and under the myopic oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from drawing import DARK, GREY, LIGHT, WARM, plain, save
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray

from actors.envs.movie_pick import MoviePickVectorEnv

SEED = 21  # whose return under the oracle is close to the mean of all users
POLICIES = ("most popular", "myopic oracle")
OUTCOMES = {"ignored": (-0.1, GREY, 12), "clicked": (1.0, LIGHT, 26), "watched to the end": (10.0, DARK, 26)}


def trajectory(policy: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Films shown and rewards of the user's episode, [100] each."""
    env = MoviePickVectorEnv(1, 100)
    act = env.baselines()[policy](env).act
    observation, _ = env.reset(seed=SEED)
    films, rewards = [], []
    for _ in range(100):
        action = act(observation, np.random.default_rng(0), explore=False, env_steps=0).action
        observation, reward, *_ = env.step(action)
        films.append(int(action[0]))
        rewards.append(reward[0])
    return np.array(films), np.array(rewards)


def draw(path: Path) -> None:
    """Films shown step by step with what came of them, and the reward summed up."""
    figure, panels = pyplot.subplots(
        3, 1, figsize=(8.4, 6.0), sharex=True, layout="constrained", height_ratios=[1, 1, 0.8]
    )
    for axes, policy, colour in zip(panels, POLICIES, (WARM, DARK), strict=False):
        films, rewards = trajectory(policy)
        show(axes, films, rewards)
        axes.set_title(f"{policy}: return {rewards.sum():.1f}", fontsize=10, loc="left")
        panels[2].plot(np.cumsum(rewards), color=colour, label=policy)
    panels[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.03), ncols=3, frameon=False, fontsize=8)
    plain(panels[2])
    panels[2].set_ylabel("reward so far")
    panels[2].set_xlabel("step of the episode")
    panels[2].legend(frameon=False, fontsize=8)
    save(figure, path)


def show(axes: Axes, films: NDArray[np.int64], rewards: NDArray[np.float32]) -> None:
    """One point a step at the film shown, coloured by what the user did."""
    for name, (reward, colour, size) in OUTCOMES.items():
        steps = np.flatnonzero(np.isclose(rewards, reward))
        axes.scatter(steps, films[steps], color=colour, s=size, label=name)
    axes.set_yticks(range(10))
    axes.set_ylim(9.6, -0.6)
    axes.set_ylabel("film shown")
    plain(axes)
