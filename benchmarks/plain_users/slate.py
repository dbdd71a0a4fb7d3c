"""headrace/SlateMNL-v0, ids observed."""

from __future__ import annotations

import random
from math import exp

from actors.envs.choice import MultinomialLogit
from actors.envs.slate.catalogue import draw_catalogue
from actors.envs.slate.model import SlateModel

MODEL, CHOICE = SlateModel(obs_mode="ids"), MultinomialLogit()
CATALOGUE = draw_catalogue(MODEL)
TOPIC, QUALITY = CATALOGUE.topic.tolist(), CATALOGUE.quality.tolist()
DOCUMENTS = range(MODEL.documents)


class User:
    """One user's session."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.minutes, self.clicked = rng, MODEL.budget_minutes, [0] * MODEL.slots
        self.interests = [rng.uniform(-1.0, 1.0) for _ in range(MODEL.topics)]
        self.candidates = rng.sample(DOCUMENTS, MODEL.candidates)

    def step(self, slate: list[int]) -> float:
        """Show a slate of places among the candidates, a repeated one counting once; returns minutes watched."""
        shown = [self.candidates[place] for place in slate]
        masses = [exp(CHOICE.beta * self.interests[TOPIC[document]]) for document in shown]
        masses = [0.0 if slate[k] in slate[:k] else mass for k, mass in enumerate(masses)]
        place = self.rng.choices(range(len(slate) + 1), weights=[*masses, exp(CHOICE.none_logit)])[0]
        self.clicked, self.candidates = [0] * MODEL.slots, self.rng.sample(DOCUMENTS, MODEL.candidates)
        if place == len(slate):
            self.minutes -= MODEL.ignore_minutes
            return 0.0
        self.clicked[place] = 1
        document, watched = shown[place], min(self.minutes, MODEL.length)
        interest = self.interests[TOPIC[document]]
        change = MODEL.interest_step * (1 - abs(interest)) * (1 - interest)
        moved = interest + (change if self.rng.random() < (1 + interest) / 2 else -change)
        self.interests[TOPIC[document]] = min(max(moved, -1.0), 1.0)
        self.minutes -= watched * (1 - MODEL.quality_return * QUALITY[document])
        return watched

    def observe(self) -> tuple[list[float], list[int], list[int]]:
        """Interests and what is left, candidates, response."""
        left = min(max(self.minutes / MODEL.budget_minutes, 0.0), 1.0)
        return [float(any(self.clicked)), *self.interests, left], list(self.candidates), list(self.clicked)


def play(steps: int, seed: int) -> float:
    """See the package."""
    rng, total = random.Random(seed), 0.0
    user, begun = User(rng), 0
    for step in range(steps):
        total += user.step([rng.randrange(MODEL.candidates) for _ in range(MODEL.slots)])
        user.observe()
        if user.minutes <= 0.0 or step - begun == 599:
            user, begun = User(rng), step + 1
    return total / steps
