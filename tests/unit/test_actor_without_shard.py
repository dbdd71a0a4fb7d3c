"""An actor whose shard is away keeps its records, says what it waits for, and goes on when the shard is back."""

from typing import Any

from kit.runs import experiment

from distributed.build import make_actor_loop, make_task
from learners.weights import WeightSlot
from replay_server.errors import Unavailable


class AwayForAWhile:
    """A writer whose shard cannot be reached for its first calls."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self.acknowledged = 0

    def append(self, rows: Any, priorities: Any = None, *, timeout_s: float = 5.0) -> None:
        self._calls -= 1
        if self._calls >= 0:
            raise Unavailable("nothing listens there")
        self.acknowledged += len(rows["reward"])


def test_records_wait_for_their_shard() -> None:
    config = experiment("headrace/MoviePick10-v0", 4)
    writer: Any = AwayForAWhile(3)
    loop = make_actor_loop(config, make_task(config), 0, writer, WeightSlot(), lambda: 0.0)
    loop.begin(1, 0)
    while loop.step(0.1):
        pass
    made = loop.report().env_steps
    assert loop.report().blocked_on == "shard"
    assert [loop.step(0.1) for _ in range(3)] == [False, False, True]
    report = loop.report()
    assert (report.env_steps, report.blocked_on) == (made, None)  # it did not act while its records waited
    assert report.stored >= config.actors.records_per_insert
    loop.close()
