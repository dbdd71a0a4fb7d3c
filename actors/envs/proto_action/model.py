"""Every constant of the ProtoAction user model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actors.envs.constants import check_kinds


@dataclass(frozen=True, kw_only=True)
class ProtoActionModel:
    """Constants of items, users, satiation and reward.

    A user of taste u and satiation m, shown item v, gives the reward
    clip(reward_scale (u - lam m).v + N(0, reward_noise), -reward_bound, reward_bound), and m becomes
    decay m + (1 - decay) v.

    Attributes:
        catalogue_seed: draws the items; the same for every actor, seed and evaluation of an experiment.
        items: N, items in the catalogue.
        dim: d, numbers in an item's and a user's vector.
        clusters: directions that items and tastes gather around.
        item_noise, user_noise: length (root mean square) of the noise added to a direction before normalising.
        lam: weight of satiation.
        decay: share of the satiation that is left a step later.
        reward_scale, reward_noise, reward_bound: as above.
        drift: length (root mean square) of the step a taste takes on the sphere after every item; 0 keeps it.
        history_length: how many of the last items and rewards the agent sees.
        actions: "items" (an item's id) or "proto" (a vector, snapped to the item of largest inner product).
        obs_mode: "embeddings" (the items' vectors) or "ids" (int32 ids).
        show_user: whether the agent sees the taste.
    """

    catalogue_seed: int = 304
    items: int = 10_000
    dim: int = 32
    clusters: int = 50
    item_noise: float = 0.6
    user_noise: float = 0.6
    lam: float = 0.3
    decay: float = 0.7
    reward_scale: float = 5.0
    reward_noise: float = 0.5
    reward_bound: float = 5.0
    drift: float = 0.0
    history_length: int = 10
    actions: str = "proto"
    obs_mode: str = "embeddings"
    show_user: bool = True

    def __post_init__(self) -> None:
        check_kinds(self)
        for name, known in (("actions", ("items", "proto")), ("obs_mode", ("embeddings", "ids"))):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is {getattr(self, name)!r}, must be "{known[0]}" or "{known[1]}"')
        for name in ("items", "dim", "clusters", "history_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("item_noise", "user_noise", "reward_noise", "drift"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, must be finite and at least 0")
        for name in ("reward_scale", "reward_bound"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, must be finite and above 0")
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay is {self.decay}, must be at least 0 and below 1")
