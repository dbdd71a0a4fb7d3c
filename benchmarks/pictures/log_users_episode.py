"""LogUsers: what one made-up user is shown, in a plane of two factors, by popularity and by the myopic oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from drawing import DARK, LIGHT, plain, save
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray

from actors.envs.log_users import FittedUsers, LogUsers, LogUsersModel
from actors.envs.log_users.baselines import MyopicOracle, Ranked

ITEMS, STEPS, SEED = 160, 20, 4
TASTE = (1.6, 0.9)


def population() -> FittedUsers:
    """One user, and items around four centres of which the largest is not his."""
    rng = np.random.default_rng(SEED)
    centres = np.array([[-1.0, 0.7], [1.0, 0.8], [0.3, -1.1], [-0.8, -0.7]])
    kind = rng.choice(4, size=ITEMS, p=[0.4, 0.2, 0.2, 0.2])
    return FittedUsers(
        user_factors=np.array([TASTE], dtype=np.float32),
        item_factors=(centres[kind] + rng.normal(scale=0.4, size=(ITEMS, 2))).astype(np.float32),
        generosity=np.zeros(1, dtype=np.float32),
        quality=np.zeros(ITEMS, dtype=np.float32),
        ratings=rng.integers(1, 100, size=ITEMS) * np.where(kind == 0, 3, 1),
        held_out=np.zeros(1, dtype=np.bool_),
        user_names=np.array(["a user"]),
        item_names=np.array([f"item {item}" for item in range(ITEMS)]),
        click=np.array([-0.4, 0.8, 0.0, 0.0]),
        source={},
        report={},
    )


def episode(policy: str) -> tuple[LogUsers, NDArray[np.int32], NDArray[np.int8]]:
    """The simulation after its episode, the items shown and whether they were clicked, [20] each."""
    simulation = LogUsers(LogUsersModel(history_length=STEPS), population(), 1)
    simulation.generator = np.random.default_rng(SEED)
    simulation.reset()
    chosen = MyopicOracle(simulation) if policy == "myopic oracle" else Ranked(simulation, simulation.fitted.ratings)
    for _ in range(STEPS):
        simulation.step(chosen.act(None, simulation.generator, explore=False, env_steps=0).action)
    return simulation, simulation.memory.history[0], simulation.memory.clicked[0]


def draw(path: Path) -> None:
    """Both episodes beside each other."""
    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 4.0), sharex=True, sharey=True, layout="constrained")
    for axes, policy in zip(panels, ("round-robin popular", "myopic oracle"), strict=True):
        simulation, items, clicked = episode(policy)
        points = show(axes, simulation, items, clicked)
        axes.set_title(f"{policy}: {clicked.sum()} clicks of {STEPS}", fontsize=10, loc="left")
    panels[0].set_ylabel("factor 2")
    figure.colorbar(points, ax=panels, label="probability of a click", shrink=0.85)
    save(figure, path)


def show(axes: Axes, simulation: LogUsers, items: NDArray[np.int32], clicked: NDArray[np.int8]) -> object:
    """Items in the plane of factors by click probability, those shown with their step; the arrow is the taste."""
    place = simulation.fitted.item_factors
    likely = simulation.clicks.of_all(simulation.users)[0]
    points = axes.scatter(*place.T, c=likely, cmap="Blues", vmin=0.0, vmax=1.0, s=16)
    axes.scatter(*place[items].T, facecolors="none", edgecolors=[DARK if c else "#d98c3f" for c in clicked], s=90)
    for step, item in enumerate(items, start=1):
        axes.annotate(str(step), place[item], xytext=(5, 4), textcoords="offset points", fontsize=6)
    axes.annotate("", TASTE, (0.0, 0.0), arrowprops={"arrowstyle": "->", "color": LIGHT, "linewidth": 2.0})
    axes.set_xlabel("factor 1 (dark ring: clicked, orange: ignored)")
    plain(axes)
    return points
