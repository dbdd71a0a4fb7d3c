"""SIGKILL of a shard with a journal in the middle of everything it does: what it acknowledged is there afterwards."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from fault.history import check_history, read_history
from fault.records import SPEC, stored_ids
from replay_server import HeadraceError, connect

pytestmark = pytest.mark.integration

ACTIVITIES = {
    "insert": {},
    "sample and update": {},
    "snapshot": {},
    "segment roll": {"capacity": 20_000},  # a ring this small overwrites itself, and segments come and go
    "fsync": {"durability": "fsync"},
}

_TRACES = {"snapshot": ".replay-*.tmp", "segment roll": "journal/*.log"}
"""What a shard makes while it does this."""


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_a_shard_killed_during(activity, start_shard, start_writer, start_client, soak, figures):
    """Two writers go on over every kill, sending again what was not acknowledged, also to the next life."""
    seed, kills = 17, soak.count(2, 25)
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    settings = {"durability": "journal", "capacity": 5_000_000, **ACTIVITIES[activity]}
    shard = start_shard(**settings)
    rows = 300 if activity == "segment roll" else 40
    patient = {"append_s": 60.0, "flush_s": 60.0, "most_rows": rows, "pause_s": 0.001}
    writers = [start_writer([shard.address], number, seed=number, **patient) for number in (1, 2)]
    for writer in writers:
        writer.wait_for_lines(5)
    reader, hits = None, 0
    if activity == "sample and update":
        reader = start_client("reader_process", [shard.address], pause_s=0.001, rows=256)
    for _ in range(kills):
        for writer in writers:
            writer.more_lines(20)
        saving, before = None, set(shard.directory.glob(_TRACES.get(activity, "-")))
        if activity == "snapshot":
            saving = threading.Thread(target=_save, args=(shard.address,))
            saving.start()
        if activity in _TRACES:
            _wait_for_new(shard.directory, _TRACES[activity], before)
        else:
            time.sleep(float(rng.exponential(0.05)))
        shard.kill()
        if saving is not None:
            saving.join(60)
            hits += bool(set(shard.directory.glob(_TRACES[activity])) - before)  # it was not finished
        shard.start()
        if reader is not None:
            reader.more_lines(20)
    for writer in writers:
        writer.more_lines(20)
        writer.finish()
    calls = [call for writer in writers for call in read_history(writer.history)]
    with connect([shard.address], spec=SPEC, prefetch=0) as replay:
        verdict = check_history(calls, stored_ids(replay, shard.directory), settings["capacity"])
    again = sum("duplicates=0" not in line["note"] for w in writers for line in w.lines if line["op"] == "ok")
    figures.add(kills=kills, acknowledged=verdict.acknowledged, uncertain=verdict.uncertain, flushes_seen_again=again)
    if activity == "snapshot":
        figures.add(killed_under_way=hits)
        assert hits
    if reader is not None:
        assert any(line["op"] == "sample" for line in reader.lines[-20:]), "the reader did not come back"
    assert verdict.valid, verdict
    assert verdict.acknowledged


def _wait_for_new(directory, pattern, before):
    """Until there is a file that was not there before."""
    deadline = time.monotonic() + 20
    while not set(directory.glob(pattern)) - before:
        assert time.monotonic() < deadline, f"no new {pattern} in {directory}"
        time.sleep(0.0002)


def _save(address):
    with contextlib.suppress(HeadraceError), connect([address], spec=SPEC, prefetch=0) as replay:
        replay.save(".")


def test_a_shard_killed_while_it_starts(start_shard, start_writer, soak, figures):
    """Recovery is killed too, and the next one finds everything."""
    seed = 23
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    shard = start_shard(durability="journal", capacity=1_000_000)
    writer = start_writer([shard.address], 1, most_rows=300)
    writer.more_lines(60)
    writer.kill()
    kills = soak.count(3, 40)
    shard.kill()
    for _ in range(kills):
        shard.launch()
        time.sleep(float(rng.uniform(0.1, 1.0)))
        shard.kill()
    shard.start()
    with connect([shard.address], spec=SPEC, prefetch=0) as replay:
        verdict = check_history(read_history(writer.history), stored_ids(replay, shard.directory))
    figures.add(kills=kills, acknowledged=verdict.acknowledged)
    assert verdict.valid, verdict
    assert verdict.acknowledged
