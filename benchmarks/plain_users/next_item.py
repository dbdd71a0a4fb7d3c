"""headrace/NextItem-v0."""

from __future__ import annotations

import random
from itertools import accumulate

from actors.envs.next_item.catalogue import draw_catalogue
from actors.envs.next_item.model import NextItemModel
from actors.envs.next_item.topics import draw_topics

MODEL = NextItemModel()
CATALOGUE = draw_catalogue(MODEL)
TASTE = CATALOGUE.taste.tolist()
ITEMS_OF, TOPIC_OF, RANK_OF = (table.tolist() for table in (CATALOGUE.items_of, CATALOGUE.topic_of, CATALOGUE.rank_of))
CHAIN = [list(accumulate(row)) for row in draw_topics(MODEL).matrix.tolist()]
CONSUMED = list(accumulate(TASTE))
RANKS, TOPICS = range(len(TASTE)), range(MODEL.topics)


def play(steps: int, seed: int) -> float:
    """See the package."""
    rng, clicks = random.Random(seed), 0
    for step in range(steps):
        if step % 30 == 0:
            topic, history = rng.randrange(MODEL.topics), []
            history.append(ITEMS_OF[topic][rng.choices(RANKS, cum_weights=CONSUMED)[0]])
        shown = rng.randrange(MODEL.items)
        topic = rng.choices(TOPICS, cum_weights=CHAIN[topic])[0]
        history = [*history[1 - MODEL.history_length :], ITEMS_OF[topic][rng.choices(RANKS, cum_weights=CONSUMED)[0]]]
        clicks += TOPIC_OF[shown] == topic and rng.random() < TASTE[RANK_OF[shown]] / TASTE[0]
        [-1] * (MODEL.history_length - len(history)) + history  # what the agent would see
    return clicks / steps
