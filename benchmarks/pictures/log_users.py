"""LogUsers on MovieLens 1M: how reliable click probabilities are, and clicks step by step under simple policies.

Only means over many users are drawn. The data lie in the directory that HEADRACE_DATA names.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from drawing import DARK, GREY, LIGHT, WARM, plain, save
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray

from actors.envs.log_users import FitSettings, FittedUsers, LogUsers, LogUsersModel, fit_users, read_log
from actors.envs.log_users.baselines import BASELINES
from actors.envs.users import UsersVectorEnv
from actors.timestep import TimeStep

DATA = Path(os.environ.get("HEADRACE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
LOG = DATA / "ml-1m" / "ratings_chronological.csv.gz"
POLICIES = {"random": GREY, "round-robin popular": LIGHT, "per-user bandit": WARM, "myopic oracle": DARK}
USERS, STEPS, SEED = 2048, 20, 21


def draw(path: Path) -> None:
    """Reliability on the left, clicks over the steps of an episode on the right."""
    if not LOG.exists():
        raise SystemExit(f"{LOG}: not there; put MovieLens 1M there or name its place with HEADRACE_DATA")
    log = read_log(LOG)
    fitted, with_quality = (fit_users(log, FitSettings(item_quality=quality)) for quality in (False, True))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained", width_ratios=[1, 1.15])
    reliability(left, fitted, "factors and generosity", DARK)
    reliability(left, with_quality, "with item quality", WARM)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--")
    left.set_xlabel("probability of a like that the model says")
    left.set_ylabel("share of ratings that are likes")
    left.legend(frameon=False, fontsize=8)
    plain(left)
    for name, colour in POLICIES.items():
        right.plot(range(1, STEPS + 1), clicks(fitted, name), color=colour, label=name)
    right.set_xlabel("step of the episode")
    right.set_ylabel(f"share of {USERS:,} users who click")
    right.set_xticks(range(0, STEPS + 1, 5))
    right.legend(frameon=False, fontsize=8)
    plain(right)
    save(figure, path)


def reliability(axes: Axes, fitted: FittedUsers, name: str, colour: str) -> None:
    """What was said and what happened in ten bins of held-out users' later ratings."""
    judged = fitted.report["click_model"]
    curve = np.array(judged["reliability"])
    error = judged["expected_calibration_error"]
    axes.plot(curve[:, 0], curve[:, 1], "o-", color=colour, markersize=4, label=f"{name}, error {error:.3f}")


def clicks(fitted: FittedUsers, policy: str) -> NDArray[np.float64]:
    """Mean clicks [20] at each step of one episode."""
    env = UsersVectorEnv(LogUsers(LogUsersModel(), fitted, USERS), max_episode_steps=STEPS + 1)
    chosen, rng = BASELINES[policy](env), np.random.default_rng(SEED)
    env.reset(seed=SEED)
    none, means = np.zeros(USERS, dtype=np.bool_), []
    for _ in range(STEPS):
        action = chosen.act(none, rng, explore=False, env_steps=0)
        _, reward, *_ = env.step(action.action)
        if hasattr(chosen, "observe"):
            chosen.observe(action, TimeStep(none, none, reward, none, none, ~none))
        means.append(float(reward.mean()))
    return np.array(means)
