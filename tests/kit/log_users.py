"""A small log of ratings, and fitted users made of random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actors.envs.log_users import FittedUsers


def write_log(path: Path, users: int = 80, items: int = 80, seed: int = 0, separator: str = ",") -> Path:
    """Users of two tastes rate half of the items: 4 or 5 for those of their own kind as a rule, else 1 to 3."""
    rng = np.random.default_rng(seed)
    lines = [separator.join(("user", "item", "rating", "time"))]
    for user in range(users):
        for time, item in enumerate(rng.permutation(items)[: items // 2]):
            good = (user + item) % 2 == 0
            if rng.random() < 0.1:
                good = not good
            rating = rng.integers(4, 6) if good else rng.integers(1, 4)
            lines.append(separator.join(map(str, (f"u{user}", f"i{item}", rating, 1000 + time))))
    path.write_text("\n".join(lines) + "\n")
    return path


def random_users(users: int = 300, items: int = 50, factors: int = 6, seed: int = 0) -> FittedUsers:
    """A population and a catalogue that no log stands behind."""
    rng = np.random.default_rng(seed)
    return FittedUsers(
        user_factors=rng.normal(size=(users, factors)).astype(np.float32),
        item_factors=rng.normal(scale=0.3, size=(items, factors)).astype(np.float32),
        generosity=rng.normal(size=users).astype(np.float32),
        quality=rng.normal(scale=0.5, size=items).astype(np.float32),
        ratings=rng.permutation(items) + 5,
        held_out=np.arange(users) % 5 == 0,
        user_names=np.array([f"u{user}" for user in range(users)]),
        item_names=np.array([f"i{item}" for item in range(items)]),
        click=np.array([-0.3, 1.0, 0.7, 0.6]),
        source={},
        report={},
    )
