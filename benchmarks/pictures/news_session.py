"""NewsSession: one user's 30 days, shown what he most likely clicks, or what he likely clicks and is worth it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawing import DARK, WARM, plain, save
from matplotlib import pyplot
from numpy.typing import NDArray

from actors.envs.news_session import NewsSessionVectorEnv

SEED = 9  # whose clicks under both policies are close to the mean of all users
POLICIES = {"click probability": WARM, "click probability x worth": DARK}


@dataclass(frozen=True)
class Month:
    """One user's requests: days since the first, clicks, satisfaction and activeness, [n] each."""

    days: NDArray[np.float64]
    clicks: NDArray[np.float64]
    satisfaction: NDArray[np.float64]
    activeness: NDArray[np.float64]


def month(policy: str) -> Month:
    """The user's episode."""
    env = NewsSessionVectorEnv(1, autoreset_mode="Disabled")
    act = env.baselines()[policy](env).act
    env.reset(seed=SEED)
    rows = []
    over = False
    while not over:
        at, active = float(env.simulation.clock[0]) / 24.0, float(env.simulation.activeness.values[0])
        action = act(np.zeros((1, 1)), np.random.default_rng(0), explore=False, env_steps=0).action
        _, _, _, truncated, info = env.step(action)
        rows.append((at, info["r_click"][0], env.simulation.satisfaction.values[0], active))
        over = bool(truncated[0])
    return Month(*np.array(rows, dtype=np.float64).T)


def draw(path: Path) -> None:
    """Satisfaction, activeness, and clicks summed up, against days."""
    figure, panels = pyplot.subplots(3, 1, figsize=(8.4, 6.0), sharex=True, layout="constrained")
    for policy, colour in POLICIES.items():
        seen = month(policy)
        total, sessions = int(seen.clicks.sum()), 1 + int((np.diff(seen.days) > 0.5 / 24).sum())
        label = f"{policy}: {total} clicks in {len(seen.days)} requests and {sessions} sessions"
        panels[0].step(seen.days, seen.satisfaction, where="post", color=colour, label=label)
        panels[1].plot(seen.days, seen.activeness, ".", markersize=4, color=colour)
        panels[2].step(seen.days, np.cumsum(seen.clicks), where="post", color=colour)
    panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8)
    for axes, name in zip(panels, ("satisfaction", "activeness at requests", "clicks so far"), strict=True):
        axes.set_ylabel(name)
        plain(axes)
    panels[2].set_xlabel("days")
    save(figure, path)
