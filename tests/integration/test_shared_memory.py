"""Shared memory between a client and a shard: the same results, nothing overwritten, nothing left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from replay_server import ConfigError, Field, RecordSpec, connect, start_server
from replay_server.arena import Arena
from replay_server.attachments import Attachments
from replay_server.errors import InvalidRecord, NotShared, ReplayError, WriterEvicted
from replay_server.messages import InsertRequest, SampleRequest, Stamp, Updates
from replay_server.remote import RemoteShard

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
SPEC = RecordSpec((Field("x", "float32", (16,)), Field("a", "int64")))
COUNTS = np.array([700, 800])


@pytest.fixture
def server():
    with start_server(SPEC, 5000, seed=3) as running:
        yield running


def rows(start, count):
    numbers = np.arange(start, start + count)
    return SPEC.pack({"x": np.repeat(numbers[:, None], 16, axis=1).astype(np.float32), "a": numbers})


def insert(port, start, count, sequence=0):
    stamp = Stamp(5, 0, sequence)
    reply = port.insert(InsertRequest(rows(start, count), np.arange(1.0, count + 1), stamp, 0.5)).result(10.0)
    assert reply.accepted == count


def sample(port, counts=COUNTS, updates=None):
    return port.sample(SampleRequest(np.asarray(counts), 0.0, updates or Updates(), 0.5)).result(10.0)


def wait_for(condition, timeout_s=15.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_arena(array, port):
    """Whether an array lies in the memory that a port shares."""
    memory = np.frombuffer(port._sharing._arena._map, np.uint8)
    begin = memory.ctypes.data
    return begin <= array.ctypes.data < begin + len(memory)


def test_results_are_the_same_bytes_as_over_grpc():
    outcomes = []
    for transport in ("grpc", "shm"):
        with start_server(SPEC, 5000, seed=3) as server:
            port = RemoteShard(server.address, 10.0, transport=transport)
            assert port.transport == transport
            insert(port, 0, 4000)
            replies = [sample(port)]
            keys = replies[0].keys
            replies.append(sample(port, updates=Updates(keys, np.linspace(0.0, 9.0, len(keys)))))
            assert in_arena(replies[1].records, port) if transport == "shm" else True
            assert not replies[1].records.flags.writeable
            outcomes.append(
                [
                    part.tobytes()
                    for r in replies
                    for part in (r.records, r.keys["slot"], r.keys["generation"], r.probabilities)
                ]
            )
            port.close()
    assert outcomes[0] == outcomes[1]


def test_what_is_held_is_never_overwritten(server, monkeypatch):
    monkeypatch.setattr("replay_server.sharing.Arena", partial(Arena, 1 << 20))
    with connect([server.address], transport="shm", prefetch=4, seed=1) as replay:
        replay.insert(rows(0, 4000))
        held = []
        for _ in range(200):
            batch = replay.sample(500)
            held.append((batch.columns["a"][::3], batch.columns["a"][::3].copy()))
            np.testing.assert_array_equal(batch.columns["x"][:, 7], batch.columns["a"].astype(np.float32))
        assert sum(len(numbers) for numbers, _ in held) * 3 * SPEC.record_size > 1 << 20
        for numbers, copy in held:
            np.testing.assert_array_equal(numbers, copy)


def test_released_and_forgotten_batches_free_their_memory(server, monkeypatch):
    monkeypatch.setattr("replay_server.sharing.Arena", partial(Arena, 1 << 20))
    port = RemoteShard(server.address, 10.0, transport="shm")
    insert(port, 0, 4000)
    arena = port._sharing._arena
    assert arena.leased == 0
    for _ in range(50):
        reply = sample(port)
        assert in_arena(reply.records, port)
    held = [sample(port) for _ in range(20)]
    assert [in_arena(reply.records, port) for reply in held].count(False) > 10
    del held, reply
    gc.collect()
    assert arena.leased == 0
    port.close()
    with connect([server.address], transport="shm") as replay:
        batch = replay.sample(500)
        numbers = batch.columns["a"]
        copy = numbers.copy()
        batch.release()
        assert len(batch) == len(batch.keys) == len(batch.columns["a"]) == 0
        replay.sample(500)
        np.testing.assert_array_equal(numbers, copy)


def test_a_shard_that_forgot_the_session_is_offered_memory_anew(server):
    port = RemoteShard(server.address, 10.0, transport="shm")
    insert(port, 0, 4000)
    before = port._sharing.session
    server._attachments.detach(before)
    assert len(sample(port).records) == COUNTS.sum()
    wait_for(lambda: port.transport == "shm")
    assert port._sharing.session != before
    assert in_arena(sample(port).records, port)
    insert(port, 4000, 3000, sequence=1)
    assert server.shard.stats().inserted == 7000
    port.close()
    assert len(server._attachments) == 0


def test_only_a_call_without_an_answer_costs_the_memory(server):
    port = RemoteShard(server.address, 10.0, transport="shm")
    session = port._sharing.session
    nan = rows(0, 4000)
    SPEC.columns(nan)["x"][9, 9] = np.nan
    with pytest.raises(InvalidRecord):
        port.insert(InsertRequest(nan, None, None, 0.0)).result(10.0)
    with pytest.raises(WriterEvicted):
        port.insert(InsertRequest(rows(0, 4000), None, Stamp(5, 0, 0, opens=False), 0.0)).result(10.0)
    insert(port, 0, 4000)
    assert port._sharing.session == session
    with server.shard._lock:
        abandoned = port.sample(SampleRequest(COUNTS, 0.0, Updates(), 0.5))
        assert not abandoned.done()
        abandoned._future.cancel()
    wait_for(lambda: port._sharing.session not in (None, session))
    assert in_arena(sample(port).records, port)
    port.close()


def test_auto_falls_back_and_shm_says_why(server, monkeypatch):
    def full(self, ticket):
        raise NotShared("this shard shares memory with 0 clients already")

    monkeypatch.setattr(Attachments, "attach", full)
    port = RemoteShard(server.address, 10.0)
    assert port.transport == "grpc"
    insert(port, 0, 4000)
    assert len(sample(port).records) == COUNTS.sum()
    port.close()
    with pytest.raises(NotShared, match="shares memory with 0 clients"):
        RemoteShard(server.address, 10.0, transport="shm")
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(os, "memfd_create", lambda *_: (_ for _ in ()).throw(OSError(38, "no memfd")), raising=False)
    with pytest.raises(NotShared, match="no memfd"):
        RemoteShard(server.address, 10.0, transport="shm")
    with pytest.raises(ConfigError, match="transport"):
        RemoteShard(server.address, 10.0, transport="tcp")


_CLIENT = """
import sys
import numpy as np
from replay_server import connect
replay = connect([sys.argv[1]], transport="shm", prefetch=8)
while True:
    batch = replay.sample(1000)
    print(len(batch), flush=True)
"""


def test_a_killed_client_leaves_nothing(server):
    with connect([server.address]) as replay:
        replay.insert(rows(0, 4000))
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, server.address], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout.readline() == "1000\n"
        assert len(server._attachments) == 1
    finally:
        client.kill()
        client.wait(10)
        client.stdout.close()
    wait_for(lambda: len(server._attachments) == 0)
    assert not [name for name in os.listdir("/dev/shm") if "headrace" in name]
    server.shard.check_valid()


_SHARD = """
import sys
from replay_server import RecordSpec, start_server
server = start_server(RecordSpec.from_json(sys.argv[1]), 5000, address=sys.argv[2])
print(server.address, flush=True)
sys.stdin.read()
"""


def start_shard(address):
    process = subprocess.Popen(
        [sys.executable, "-c", _SHARD, SPEC.to_json(), address],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def end(process):
    process.kill()
    process.wait(10)
    process.stdin.close()
    process.stdout.close()


def test_a_killed_shard_leaves_batches_whole_and_is_used_again(server):
    process, address = start_shard("127.0.0.1:0")
    port = RemoteShard(address, 10.0, transport="shm")
    try:
        insert(port, 0, 4000)
        held = sample(port)
        copy = held.records.copy()
        under_way = [port.sample(SampleRequest(COUNTS, 0.0, Updates(), 0.5)) for _ in range(8)]
    finally:
        end(process)
    for call in under_way:
        try:
            assert len(call.result(10.0).records) == COUNTS.sum()
        except ReplayError:
            continue
    np.testing.assert_array_equal(held.records, copy)
    process, _ = start_shard(address)
    try:

        def inserted():
            try:
                insert(port, 0, 4000)
            except ReplayError:
                return False
            return True

        wait_for(inserted)
        wait_for(lambda: port.transport == "shm")
        assert in_arena(sample(port).records, port)
        np.testing.assert_array_equal(held.records, copy)
        port.close()
    finally:
        end(process)
