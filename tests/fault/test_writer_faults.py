"""Writers that are killed or stopped: nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from fault.history import check_history, read_history
from fault.records import SPEC, stored_ids
from replay_server import connect

pytestmark = pytest.mark.integration


def test_a_writer_killed_at_random_points(start_shard, start_writer, soak, figures):
    """Each seed: a writer of a new epoch is killed somewhere in its stream, its successor goes on."""
    shard = start_shard(capacity=2_000_000)
    histories = []
    seeds = soak.count(8, 200)
    figures.seeds(0, seeds)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        writer = start_writer([shard.address], 1 + seed % 3, epoch=seed, seed=seed, most_rows=300)
        writer.wait_for_lines(int(rng.integers(1, 8)))
        time.sleep(float(rng.exponential(0.02)))
        writer.kill()
        histories.append(writer.history)
    calls = [call for history in histories for call in read_history(history)]
    with connect([shard.address], spec=SPEC) as replay:
        verdict = check_history(calls, stored_ids(replay, shard.directory))
    figures.add(acknowledged=verdict.acknowledged, uncertain=verdict.uncertain, surfaced=verdict.surfaced)
    assert verdict.valid, verdict
    assert verdict.acknowledged and verdict.uncertain


def test_a_writer_stopped_and_replaced_is_fenced(start_shard, start_writer, soak, figures):
    """What the stopped writer had under way is there at most once; what it sends after its successor came, never."""
    shard = start_shard(capacity=2_000_000)
    old = start_writer([shard.address], 5, epoch=1, flush_s=60.0, append_s=60.0)
    old.wait_for_lines(20)
    old.process.send_signal(signal.SIGSTOP)
    new = start_writer([shard.address], 5, epoch=2)
    new.wait_for_lines(20)
    time.sleep(soak.count(1, 20))
    old.process.send_signal(signal.SIGCONT)
    assert old.process.wait(30) == 0
    assert "StaleEpoch" in old.history.read_text()
    new.finish()
    calls = read_history(old.history) + read_history(new.history)
    with connect([shard.address], spec=SPEC) as replay:
        verdict = check_history(calls, stored_ids(replay, shard.directory))
        assert replay.stats().shards[0].fenced > 0
    figures.add(acknowledged=verdict.acknowledged, uncertain=verdict.uncertain, surfaced=verdict.surfaced)
    assert verdict.valid, verdict
