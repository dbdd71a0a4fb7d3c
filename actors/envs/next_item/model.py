"""Every constant of the NextItem user model."""

from __future__ import annotations

from dataclasses import dataclass

from actors.envs.constants import check_kinds


@dataclass(frozen=True, kw_only=True)
class NextItemModel:
    """Constants of items, topics and users.

    A user's topic moves by the matrix T = stay x identity + (1 - stay) x W, the rows of W drawn from
    Dirichlet(concentration). Given the topic, the user consumes its item of rank r (1, 2, ...) with probability
    proportional to r^-taste_exponent, and clicks a shown item of that topic and rank with probability
    r^-taste_exponent; items of other topics never.

    Attributes:
        catalogue_seed: draws items' topics and ranks and the matrix; the same for every actor, seed and evaluation.
        items: N, a multiple of `topics`.
        topics: number of topics, all of N / topics items.
        stay: weight of the identity in the topics' matrix, in [0, 1].
        concentration: of the Dirichlet rows; the smaller, the fewer topics follow a topic.
        taste_exponent: of Zipf's law; 0 makes all items of a topic alike.
        history_length: how many consumed items the agent sees.
    """

    catalogue_seed: int = 0
    items: int = 1000
    topics: int = 20
    stay: float = 0.7
    concentration: float = 0.3
    taste_exponent: float = 0.8
    history_length: int = 10

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("items", "topics", "history_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.items % self.topics:
            raise ValueError(f"items is {self.items}, must be a multiple of topics ({self.topics})")
        if not 0.0 <= self.stay <= 1.0:
            raise ValueError(f"stay is {self.stay}, must lie between 0 and 1")
        if self.concentration <= 0.0:
            raise ValueError(f"concentration is {self.concentration}, must be positive")
        if self.taste_exponent < 0.0:
            raise ValueError(f"taste_exponent is {self.taste_exponent}, must not be negative")
