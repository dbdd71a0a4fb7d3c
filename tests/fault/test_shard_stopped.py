"""A shard that is stopped or killed beside others that go on: it is left out, and comes back by itself."""

from __future__ import annotations

import signal
import time

import pytest

from fault.history import check_history, read_history
from fault.records import SPEC, rows, stored_ids
from replay_server import connect

pytestmark = pytest.mark.integration

_DEADLINE_S = 1.0
_LATE_S = 2.5  # on a busy machine; less than the shortest trouble lasts


def shards_seen(lines):
    return {shard for line in lines if line["op"] == "sample" for shard in line["shards"]}


def wait_until(condition, what, patience_s=40.0):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_for_samples(reader, count):
    """So many more samples, not counting those that were on their way."""
    before = len(reader.lines) + 5
    wait_until(lambda: sum(line["op"] == "sample" for line in reader.lines[before:]) >= count, "nothing is sampled")


def test_a_stopped_shard_is_left_out_and_rejoins(start_shard, start_client, start_writer, soak, figures):
    """SIGSTOP: samples come from the other shard meanwhile; the writer's stream goes on when it continues."""
    shards = [start_shard(seed=index) for index in range(2)]
    addresses = [shard.address for shard in shards]
    with connect(addresses, spec=SPEC, prefetch=0) as replay:
        replay.insert(rows(0, 500))
        replay.insert(rows(500, 500))
        writer = start_writer(addresses, 1, shard=0, pause_s=0.005)
        reader = start_client("reader_process", addresses, timeout_s=_DEADLINE_S)
        wait_until(lambda: shards_seen(reader.lines) == {0, 1}, "the reader does not reach both shards")
        shards[0].signal(signal.SIGSTOP)
        begin = time.monotonic()
        wait_for_samples(reader, 20)
        figures.note(others_after_s=round(time.monotonic() - begin, 2))
        time.sleep(max(soak.count(6, 20) - (time.monotonic() - begin), 0.0))
        during = len(reader.lines)
        shards[0].signal(signal.SIGCONT)
        begin = time.monotonic()
        wait_until(lambda: 0 in shards_seen(reader.lines[during + 1 :]), "the shard that continued is not sampled")
        figures.note(back_after_s=round(time.monotonic() - begin, 2))
        writer.more_lines(20)
        for client in (writer, reader):
            client.finish()
        longest = max(line["took"] for line in reader.lines)
        stored = stored_ids(replay, shards[0].directory, shards[1].directory)
        stored = stored[stored >= 1000]
        verdict = check_history(read_history(writer.history), stored)
    figures.add(acknowledged=verdict.acknowledged, uncertain=verdict.uncertain, surfaced=verdict.surfaced)
    figures.note(longest_sample_s=longest)
    assert verdict.valid, verdict
    assert longest < _DEADLINE_S + _LATE_S, "a sample outstayed its deadline"


def test_a_killed_shard_is_left_out_and_rejoins(start_shard, start_client, soak, figures):
    """SIGKILL at level `checkpoint`: its records are gone, the other's are sampled, and an empty life joins again."""
    shards = [start_shard(seed=index) for index in range(2)]
    addresses = [shard.address for shard in shards]
    with connect(addresses, spec=SPEC, prefetch=0) as replay:
        replay.insert(rows(0, 500))
        replay.insert(rows(500, 500))
    reader = start_client("reader_process", addresses, timeout_s=_DEADLINE_S)
    for _ in range(soak.count(1, 12)):
        wait_until(lambda: shards_seen(reader.lines[-30:]) == {0, 1}, "the reader does not reach both shards")
        shards[0].kill()
        wait_for_samples(reader, 10)
        shards[0].start()
        with connect([shards[0].address], spec=SPEC, prefetch=0) as replay:
            replay.insert(rows(0, 500))
    wait_until(lambda: shards_seen(reader.lines[-30:]) == {0, 1}, "the shard that came back is not sampled")
    reader.finish()
    longest = max(line["took"] for line in reader.lines)
    figures.note(longest_sample_s=longest, failed=sum(line["op"] == "failed" for line in reader.lines))
    assert longest < _DEADLINE_S + _LATE_S, "a sample outstayed its deadline"
