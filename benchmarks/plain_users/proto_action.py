"""headrace/ProtoAction-v0 with item ids."""

from __future__ import annotations

import random
from math import sqrt

from actors.envs.proto_action.catalogue import draw_catalogue
from actors.envs.proto_action.model import ProtoActionModel

MODEL = ProtoActionModel(actions="items", obs_mode="ids")
CATALOGUE = draw_catalogue(MODEL)
ITEMS, CENTRES = CATALOGUE.items.tolist(), CATALOGUE.centres.tolist()
DIM = len(ITEMS[0])


class User:
    """One user's episode."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        centre, scale = CENTRES[rng.randrange(len(CENTRES))], MODEL.user_noise / sqrt(DIM)
        taste = [x + rng.gauss(0.0, scale) for x in centre]
        length = sqrt(sum(x * x for x in taste))
        self.taste, self.satiation = [x / length for x in taste], [0.0] * DIM
        self.history: list[tuple[int, float]] = []

    def step(self, item: int) -> float:
        """Show an item; returns the reward."""
        vector, decay = ITEMS[item], MODEL.decay
        liked = sum((u - MODEL.lam * m) * v for u, m, v in zip(self.taste, self.satiation, vector, strict=True))
        reward = MODEL.reward_scale * liked + self.rng.gauss(0.0, MODEL.reward_noise)
        reward = min(max(reward, -MODEL.reward_bound), MODEL.reward_bound)
        self.satiation = [decay * m + (1 - decay) * v for m, v in zip(self.satiation, vector, strict=True)]
        self.history = [*self.history[1 - MODEL.history_length :], (item, reward)]
        return reward


def play(steps: int, seed: int) -> float:
    """See the package."""
    rng, total = random.Random(seed), 0.0
    for step in range(steps):
        if step % 20 == 0:
            user = User(rng)
        total += user.step(rng.randrange(len(ITEMS)))
        [(-1, 0.0)] * (MODEL.history_length - len(user.history)) + user.history  # what the agent would see
    return total / steps
