"""headrace/NewsSession-v0, ids observed."""

from __future__ import annotations

import random
from math import exp, log1p, log2, sqrt

from actors.envs.news_session.articles import draw_library
from actors.envs.news_session.model import NewsSessionModel

MODEL = NewsSessionModel(obs_mode="ids", population=10_000)
LIBRARY = draw_library(MODEL)
VECTORS, PROTOTYPES = LIBRARY.vectors.tolist(), LIBRARY.prototypes.tolist()
QUALITY, CLICKBAIT = LIBRARY.quality.tolist(), LIBRARY.clickbait.tolist()
ARTICLES = range(MODEL.articles)


class User:
    """One user's episode; the pool is drawn anew for every request, as users do not share a clock here."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.satisfaction, self.activeness = rng, MODEL.satisfaction_start, MODEL.activeness_start
        first = rng.randrange(MODEL.genres)
        second = (first + rng.randrange(1, MODEL.genres)) % MODEL.genres
        weight, scale = rng.random(), MODEL.taste_noise / sqrt(MODEL.taste_dim)
        taste = [
            weight * a + (1 - weight) * b + rng.gauss(0.0, scale)
            for a, b in zip(PROTOTYPES[first], PROTOTYPES[second], strict=True)
        ]
        length = sqrt(sum(x * x for x in taste))
        self.taste, self.hours, self.history = [x / length for x in taste], 0.0, []
        self.draw_pool()

    def draw_pool(self) -> None:
        """New articles on offer."""
        self.pool = self.rng.sample(ARTICLES, MODEL.pool)
        self.ages = [self.rng.expovariate(1.0 / MODEL.mean_age) for _ in self.pool]

    def step(self, places: list[int]) -> float:
        """Show articles at places of the pool, a repeated one counting once; returns the reward."""
        clicked = [place for k, place in enumerate(places) if place not in places[:k] and self.clicks(place, k)]
        worth = [QUALITY[self.pool[place]] * (1 - CLICKBAIT[self.pool[place]]) for place in clicked]
        mean = MODEL.satisfaction_click * sum(worth) / len(worth) if worth else MODEL.satisfaction_none
        memory = MODEL.satisfaction_memory
        self.satisfaction = memory * self.satisfaction + (1 - memory) * mean
        hours = MODEL.session_step
        if self.rng.random() >= (MODEL.continue_click if clicked else MODEL.continue_none):
            gap = MODEL.gap * exp(-MODEL.gap_satisfaction * (self.satisfaction - 0.5))
            hours = -log1p(-self.rng.random()) * gap
        self.hours += hours
        kept = self.activeness * exp(-3600.0 * MODEL.activeness_decay * hours)
        self.activeness = min(1.0, kept + MODEL.activeness_return)
        self.history = [*self.history, *(self.pool[place] for place in clicked)][-MODEL.history_length :]
        self.draw_pool()
        return len(clicked) + MODEL.beta * self.activeness

    def clicks(self, place: int, k: int) -> bool:
        """Whether the article at a place of the pool, shown k-th, is clicked."""
        article = self.pool[place]
        affinity = sum(u * v for u, v in zip(self.taste, VECTORS[article], strict=True))
        logit = MODEL.click_bias + MODEL.click_affinity * affinity + MODEL.click_clickbait * CLICKBAIT[article]
        chance = 1 / (1 + exp(MODEL.click_age * self.ages[place] - logit)) / log2(k + 2)
        return self.rng.random() < chance

    def observe(self) -> list[int]:
        """Articles on offer, and those clicked last."""
        return [*self.pool, *self.history]


def play(steps: int, seed: int) -> float:
    """See the package."""
    rng, total = random.Random(seed), 0.0
    user = User(rng)
    for _ in range(steps):
        total += user.step([rng.randrange(MODEL.pool) for _ in range(MODEL.slots)])
        user.observe()
        if user.hours >= 24.0 * MODEL.days:
            user = User(rng)
    return total / steps
