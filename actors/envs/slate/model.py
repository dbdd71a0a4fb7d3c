"""Every constant of the slate tasks."""

from __future__ import annotations

from dataclasses import dataclass

from actors.envs.constants import check_kinds


@dataclass(frozen=True, kw_only=True)
class SlateModel:
    """Constants of documents, users and sessions, after interest evolution of RecSim (Ie et al. 2019).

    Watching a document of quality q takes `length` minutes of the user's time and gives back
    `quality_return` x q of them; a slate from which nothing is watched takes `ignore_minutes`. The session ends when
    the time is spent. The reward is minutes watched.

    Attributes:
        catalogue_seed: draws the documents; the same for every actor, seed and evaluation of an experiment.
        documents: N, size of the catalogue.
        topics: T; each document has one, and a user an interest in [-1, 1] in each.
        candidates: M, different documents on offer in each step, drawn afresh.
        slots: K, places of a slate.
        budget_minutes: time of a session.
        length: minutes that watching takes; less when less is left.
        ignore_minutes: time that a slate takes from which nothing is watched.
        quality_return: minutes given back for each minute watched and unit of quality.
        worst_quality, best_quality: means of the first and of the last topic. They rise linearly from the worst to 0
            over the first `poor_share` of the topics, and from 0 to the best over the others.
        poor_share: share of topics that cost more time than they are watched.
        quality_noise: standard deviation of a document's quality around its topic's.
        interest_step: share of the way that an interest moves when its topic is watched, at interest 0.
        obs_mode: "embeddings" (a document is its topic, one-hot, and its quality) or "ids" (its number).
        action_mode: "slate" (K positions among the candidates) or "scores" (a number a candidate: the K largest are
            shown, largest first).
        pomdp: hide the interests and show the last `history_length` documents watched.
        show_budget: show the share of the session's time that is left.
        show_quality: tell a document's quality, in embeddings.
        history_length: documents that the agent remembers, with pomdp.
    """

    catalogue_seed: int = 0
    documents: int = 10_000
    topics: int = 20
    candidates: int = 20
    slots: int = 3
    budget_minutes: float = 200.0
    length: float = 4.0
    ignore_minutes: float = 0.5
    quality_return: float = 0.9 / 3.4
    worst_quality: float = -3.0
    best_quality: float = 3.0
    poor_share: float = 0.7
    quality_noise: float = 0.1
    interest_step: float = 0.3
    obs_mode: str = "embeddings"
    action_mode: str = "slate"
    pomdp: bool = False
    show_budget: bool = True
    show_quality: bool = True
    history_length: int = 10

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.obs_mode not in ("embeddings", "ids"):
            raise ValueError(f'obs_mode is {self.obs_mode!r}, must be "embeddings" or "ids"')
        if self.action_mode not in ("slate", "scores"):
            raise ValueError(f'action_mode is {self.action_mode!r}, must be "slate" or "scores"')
        for name in ("topics", "slots", "history_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("budget_minutes", "length", "ignore_minutes"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0")
        if not 0.0 <= self.poor_share <= 1.0:
            raise ValueError(f"poor_share is {self.poor_share}, must be between 0 and 1")
        if not self.slots <= self.candidates <= self.documents:
            raise ValueError(
                f"slots {self.slots}, candidates {self.candidates} and documents {self.documents} must not fall: a "
                "slate shows candidates, and those are different documents"
            )
