"""headrace/MoviePick10-v0, ids observed."""

from __future__ import annotations

import random
from math import exp, sqrt

from actors.envs.movie_pick import MoviePickModel
from actors.envs.movie_pick.catalogue import draw_catalogue


class User:
    """One user's episode."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.model = rng, MODEL
        first = rng.randrange(MODEL.genres)
        second = (first + rng.randrange(1, MODEL.genres)) % MODEL.genres
        weight, scale = rng.random(), MODEL.taste_noise / sqrt(MODEL.film_dim)
        taste = [
            weight * a + (1 - weight) * b + rng.gauss(0.0, scale)
            for a, b in zip(PROTOTYPES[first], PROTOTYPES[second], strict=True)
        ]
        length = sqrt(sum(x * x for x in taste))
        self.affinity = [sum(x * v for x, v in zip(taste, film, strict=True)) / length for film in FILMS]
        self.watched: list[int] = []

    def step(self, film: int) -> float:
        """Show a film; returns the reward."""
        model, rec = self.model, self.watched.count(film)
        click = model.click_bias + model.click_affinity * self.affinity[film] + POPULARITY[film]
        if self.rng.random() >= 1 / (1 + exp(model.click_satiation * rec - click)):
            return model.ignore_reward
        self.watched = [*self.watched[1 - model.history_length :], film]
        complete = model.complete_bias + model.complete_affinity * self.affinity[film] + QUALITY[film]
        finished = self.rng.random() < 1 / (1 + exp(model.complete_satiation * rec - complete))
        return model.complete_reward if finished else model.click_reward

    def observe(self) -> list[int]:
        """Films watched, oldest first, 10 for none."""
        return [self.model.films] * (self.model.history_length - len(self.watched)) + self.watched


MODEL = MoviePickModel()
CATALOGUE = draw_catalogue(MODEL)
FILMS, PROTOTYPES = CATALOGUE.films.tolist(), CATALOGUE.prototypes.tolist()
POPULARITY, QUALITY = CATALOGUE.popularity.tolist(), CATALOGUE.quality.tolist()


def play(steps: int, seed: int) -> float:
    """See the package."""
    rng, total = random.Random(seed), 0.0
    for step in range(steps):
        if step % 100 == 0:
            user = User(rng)
        total += user.step(rng.randrange(MODEL.films))
        user.observe()
    return total / steps
