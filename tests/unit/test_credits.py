"""Which shard pays for a draw when the limiter of one waits for inserts that do not come."""

import json

import numpy as np
import pytest
from unit.test_dead_shards import Fleet

from replay_server import Field, RateLimiter, RecordSpec, ReplayTimeout
from replay_server.client import ReplayClient
from replay_server.local import LocalShard
from replay_server.messages import View
from replay_server.shard import Shard
from replay_server.sharding import ShardViews
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"),))
BUFFER = 4.0


def rows(count):
    return {"number": np.arange(count)}


def local(prefetch):
    limiter = RateLimiter(1, 1.0, BUFFER)
    shards = [Shard(Table(SPEC, 10_000, seed=i, shard=i), limiter) for i in range(2)]
    return ReplayClient([LocalShard(shard) for shard in shards], seed=3, prefetch=prefetch), shards


def far(prefetch):
    fleet = Fleet(2, prefetch=prefetch, limiter=RateLimiter(1, 1.0, BUFFER), fill=False)
    return fleet.replay, fleet.shards


@pytest.mark.parametrize(("make", "prefetch"), [(local, 0), (far, 0), (far, 4)])
def test_when_the_writer_of_one_shard_stops_the_others_go_on(make, prefetch):
    replay, shards = make(prefetch)
    wait_s = 0.02 if make is local else 2.0
    writers = [replay.writer(shard=shard) for shard in range(2)]
    for writer in writers:
        writer.append(rows(32))
        writer.flush()
    with pytest.raises(ReplayTimeout):  # the learner drains both
        while True:
            replay.sample(16, timeout_s=wait_s)
    timeouts, from_first, expected, spread = 0, 0, 0.0, 0.0
    for _ in range(200):
        try:
            writers[1].append(rows(16), timeout_s=wait_s)
            writers[1].flush(timeout_s=wait_s)
            batch = replay.sample(16, timeout_s=wait_s)
        except ReplayTimeout:
            timeouts += 1
            continue
        share = 32 / batch.table_size
        from_first += int(np.count_nonzero(batch.keys["shard"] == 0))
        expected += 16 * share
        spread += 16 * share * (1.0 - share)
    assert timeouts <= 10
    assert shards[1].stats().inserted >= 32 + 16 * 180
    assert abs(from_first - expected) < 4.0 * spread**0.5 + 16 * prefetch  # drawn by mass, whoever pays
    replay.close()
    for shard in shards:
        held = shard.stats()
        assert held.sampled <= held.inserted - 1 + BUFFER + 16 * max(prefetch, 1)
        shard.check_valid()


def test_a_starved_shard_pays_again_as_soon_as_it_has_had_inserts_or_credits_back():
    for changed in (View(10.0, 10, 12, 20.0), View(10.0, 10, 11, 15.0)):
        views = ShardViews([1, 1])
        for shard in range(2):
            views.see(shard, View(10.0, 10, 11, 20.0))
        np.testing.assert_allclose(views.credits(8.0), [4.0, 4.0])
        views.starve(0)
        views.see(0, View(9.0, 10, 11, 20.0))
        np.testing.assert_allclose(views.credits(8.0), [0.0, 8.0])
        views.starve(1)
        np.testing.assert_allclose(views.credits(8.0), [4.0, 4.0])  # all wait: as ever
        views.see(0, changed)
        np.testing.assert_allclose(views.credits(8.0), [8.0, 0.0])


def test_a_starved_shard_is_still_starved_where_the_state_is_continued():
    """Otherwise a resumed run charges its draws to other shards than the run that was not stopped."""
    views = ShardViews([1, 1])
    for shard in range(2):
        views.see(shard, View(10.0, 10, 10, 0.0))
    views.starve(0)
    again = ShardViews([1, 1])
    again.load(json.loads(json.dumps(views.state())))
    assert again.payable == views.payable == [False, True]
    assert again.credits(8.0) == views.credits(8.0)
