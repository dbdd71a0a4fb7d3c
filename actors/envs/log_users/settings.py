"""How users are fitted on a log."""

from __future__ import annotations

from dataclasses import dataclass

from actors.envs.constants import check_kinds


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What counts as a like, what is held out, and the factorisation (Hu, Koren and Volinsky 2008).

    Attributes:
        liked_from: ratings from here on are likes.
        least_ratings: users with fewer ratings are left out, and items with fewer in the part that is fitted on.
        held_out_ratings: share of each user's ratings, the latest, that factors never see.
        held_out_users: share of users of whom neither item factors nor click model see anything.
        factors: numbers in a user's and an item's vector.
        regularization: weight of the squared factors.
        confidence: how much more a like weighs than a missing rating (alpha).
        iterations: of alternating least squares.
        item_quality: whether the click model also knows how often an item was liked by those who rated it.
        seed: draws the first factors and the held-out users.
    """

    liked_from: float = 4.0
    least_ratings: int = 5
    held_out_ratings: float = 0.2
    held_out_users: float = 0.2
    factors: int = 16
    regularization: float = 1.0
    confidence: float = 5.0
    iterations: int = 15
    item_quality: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("least_ratings", "factors", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("held_out_ratings", "held_out_users"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, must lie between 0 and 1")
        for name in ("regularization", "confidence"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0")
