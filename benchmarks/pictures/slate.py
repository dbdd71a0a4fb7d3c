"""Slate tasks: one user's session under three policies: what was watched, the time that was left, minutes watched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from drawing import DARK, GREY, LIGHT, WARM, plain, save
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray

from actors.envs.slate import SlateVectorEnv

SEED = 7  # whose returns are close to the means of all users
POLICIES = {"most likely watched": WARM, "odds for time": LIGHT, "planner with interests as they are": DARK}


def session(policy: str) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Quality of what was watched (NaN: nothing), minutes left and minutes watched so far, step by step."""
    env = SlateVectorEnv(1, obs_mode="ids", autoreset_mode="Disabled")
    act = env.baselines()[policy](env).act
    observation, _ = env.reset(seed=SEED)
    simulation, rng = env.simulation, np.random.default_rng(0)
    qualities, minutes, rewards, ended = [], [], [], False
    while not ended:
        action = act(observation, rng, explore=False, env_steps=0).action
        offered = simulation.candidates[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        watched = simulation.catalogue.quality[offered[action[0]]][simulation.response[0] > 0]
        qualities.append(watched[0] if len(watched) else np.nan)
        minutes.append(max(0.0, simulation.minutes[0]))
        rewards.append(reward[0])
        ended = bool(terminated[0] | truncated[0])
    return np.array(qualities), np.array(minutes), np.cumsum(rewards)


def draw(path: Path) -> None:
    """A panel of what was watched for each policy, then the time left and the minutes watched of all."""
    figure, panels = pyplot.subplots(
        5, 1, figsize=(8.4, 7.6), sharex=True, layout="constrained", height_ratios=[1, 1, 1, 1.2, 1.2]
    )
    for axes, (policy, colour) in zip(panels, POLICIES.items(), strict=False):
        qualities, minutes, watched = session(policy)
        show(axes, qualities, colour)
        axes.set_title(f"{policy}: {watched[-1]:.0f} minutes watched", fontsize=10, loc="left")
        panels[3].plot(minutes, color=colour)
        panels[4].plot(watched, color=colour, label=policy)
    panels[3].set_ylabel("minutes left")
    panels[4].set_ylabel("minutes watched")
    panels[4].set_xlabel("step of the session")
    panels[4].legend(frameon=False, fontsize=8)
    for axes in panels[3:]:
        plain(axes)
    save(figure, path)


def show(axes: Axes, qualities: NDArray[np.float32], colour: str) -> None:
    """One point a step at the quality of what was watched, a tick at the bottom where nothing was."""
    nothing = np.flatnonzero(np.isnan(qualities))
    axes.scatter(np.arange(len(qualities)), qualities, color=colour, s=12)
    axes.scatter(nothing, np.full(len(nothing), -3.8), color=GREY, s=14, marker="|")
    axes.set_ylim(-4.1, 3.6)
    axes.set_ylabel("quality")
    plain(axes)
