"""What does not belong on the port: refused with a type, changing nothing, while the calls of others go on."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time

import grpc
import numpy as np
import pytest

from fault.records import SPEC, body, check_bodies, rows
from replay_server import Field, HeadraceError, InvalidRecord, RecordSpec, ReplayTimeout, connect, start_server, wire
from replay_server.batches import KEY_DTYPE
from replay_server.errors import SchemaMismatch
from replay_server.frames import Layout
from replay_server.messages import InsertRequest, SampleRequest, Stamp, UpdateRequest, Updates
from replay_server.placing import Placement, encode_placed

pytestmark = pytest.mark.integration

LAYOUT = Layout(SPEC)
RECORDS = SPEC.pack(rows(1000, 3))
KEYS = np.zeros(2, KEY_DTYPE)
TICKET = {"pid": 1, "descriptor": 3, "inode": 1234, "size": 1 << 20, "nonce": "00" * 32}


def raw_call(channel, method, frame, timeout_s=20.0):
    return channel.unary_unary(f"/headrace.Replay/{method}")(frame, timeout=timeout_s)


@pytest.fixture
def server(tmp_path):
    with start_server(SPEC, 1000, directory=str(tmp_path)) as running, connect([running.address]) as replay:
        replay.insert(rows(0, 10))
        yield running


@pytest.fixture
def channel(server):
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.address, options=unlimited) as opened:
        yield opened


def insert(records=RECORDS, priorities=None, stamp=None, layout=LAYOUT):
    return wire.encode_insert(InsertRequest(records, priorities, stamp, 0.0), layout)


def sample(counts=(2,), credit=2.0, updates=None, layout=LAYOUT):
    return wire.encode_sample(SampleRequest(np.array(counts), credit, updates or Updates(), 0.0), layout)


def update(priorities, keys=KEYS, returned=0.0):
    return wire.encode_update(UpdateRequest(Updates(keys, np.asarray(priorities)), returned), LAYOUT)


def poisoned(value):
    records = RECORDS.copy()
    SPEC.columns(records)["x"][1, 2] = value
    return records


OTHER = RecordSpec((Field("id", "int64"), Field("x", "float32", (5,))))
OTHER_SEMANTICS = RecordSpec(SPEC.fields, {"gamma": "0.9"})

BAD = {
    "nan in a record": ("Insert", insert(poisoned(np.nan)), InvalidRecord),
    "infinity in a record": ("Insert", insert(poisoned(-np.inf)), InvalidRecord),
    "nan as a priority": ("Insert", insert(priorities=np.array([1.0, np.nan, 1.0])), InvalidRecord),
    "a priority below zero": ("Insert", insert(priorities=np.array([1.0, -1.0, 1.0])), InvalidRecord),
    "a priority beyond all sums": ("Insert", insert(priorities=np.array([1.0, 1e200, 1.0])), InvalidRecord),
    "an impossible sequence number": ("Insert", insert(stamp=Stamp(1, 0, 2**63)), InvalidRecord),
    "records of another shape": ("Insert", insert(np.zeros((2, OTHER.record_size), np.uint8)), InvalidRecord),
    "another schema": (
        "Insert",
        insert(OTHER.pack({"id": np.zeros(1, "i8"), "x": np.zeros((1, 5), "f4")}), layout=Layout(OTHER)),
        SchemaMismatch,
    ),
    "other semantics": ("Sample", sample(layout=Layout(OTHER_SEMANTICS)), SchemaMismatch),
    "an unknown table": ("Sample", sample(layout=Layout(SPEC, "elsewhere")), HeadraceError),
    "a reply too large to send": ("Sample", sample((50_000_000,)), InvalidRecord),
    "nan as a credit": ("Sample", sample(credit=np.nan), InvalidRecord),
    "a credit below zero": ("Sample", sample(credit=-1.0), InvalidRecord),
    "nan in an update": ("Update", update([1.0, np.nan]), InvalidRecord),
    "a priority below zero in an update": ("Update", update([1.0, -1e-300]), InvalidRecord),
    "nan in an update that rides along": (
        "Sample",
        sample(updates=Updates(KEYS, np.array([1.0, np.nan]))),
        InvalidRecord,
    ),
    "infinite credit returned": ("Update", update([1.0, 1.0], returned=np.inf), InvalidRecord),
    "a frame of another kind": ("Insert", sample(), InvalidRecord),
    "half a frame": ("Insert", insert()[:50], InvalidRecord),
    "a frame with more behind it": ("Insert", insert() + b"\0" * 16, InvalidRecord),
    "no frame": ("Insert", b"", InvalidRecord),
    "another protocol version": ("Sample", sample()[:4] + b"\xff\x7f" + sample()[6:], SchemaMismatch),
    "a directory that is no text": ("Save", wire.encode_json({"directory": 5}, reply=False), InvalidRecord),
    "a directory with a NUL": ("Save", wire.encode_json({"directory": "a\0b"}, reply=False), InvalidRecord),
    "half a character": ("Save", wire.encode_json({"directory": "\ud800"}, reply=False), InvalidRecord),
    "a directory of 100,000 letters": (
        "Save",
        wire.encode_json({"directory": "x" * 10**5}, reply=False),
        InvalidRecord,
    ),
    "no JSON": ("Hello", wire.encode_json({}, reply=False)[:-2] + b"{{", InvalidRecord),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_bad_input_is_refused_with_its_type(kind, server, channel):
    method, frame, expected = BAD[kind]
    before = server.shard.stats()
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(channel, method, frame)
    error = wire.decode_error(caught.value.details())
    assert isinstance(error, expected), (caught.value.code(), caught.value.details())
    assert "\n" not in str(error)
    after = server.shard.stats()
    for name in ("size", "inserted", "sampled", "priority_mass", "drawn"):
        assert getattr(before, name) == getattr(after, name), name
    server.shard.check_valid()


def test_a_stale_key_changes_nothing(server):
    with connect([server.address], prefetch=0) as replay:
        old = replay.sample(10).keys
        replay.clear()
        replay.insert(rows(50, 10), np.full(10, 2.0))
        mass = replay.stats().shards[0].priority_mass
        replay.update_priorities(old, np.full(10, 77.0))
        report = replay.flush()
        assert (report.applied, report.stale) == (0, 10)
        assert replay.stats().shards[0].priority_mass == mass


def test_oversize_messages_are_refused_both_ways(server, channel):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(channel, "Insert", bytes(wire.max_request_bytes(SPEC) + 10_000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with connect([server.address]) as replay:
        with pytest.raises(InvalidRecord, match="a message holds"):
            replay.sample(4_000_000)
        assert len(replay.sample(10)) == 10


def test_an_expired_deadline_is_reported_and_stores_nothing(server):
    with connect([server.address], prefetch=0) as replay:
        ack = replay.insert(rows(100, 5), timeout_s=0.0)
        assert (ack.accepted, ack.unknown) in ((5, 0), (0, 5))
        with pytest.raises(ReplayTimeout):
            replay.sample(5, timeout_s=0.0)
        assert len(replay.sample(5)) == 5
        size = replay.stats().size
        assert size == 10 + ack.accepted if ack.unknown == 0 else size in (10, 15)


def test_mutated_frames_never_break_a_live_server(server, channel, soak, figures):
    """Flipped bits, cuts, copies and noise: refused with a type, or understood; the table stays valid."""
    seed, count = 7, soak.count(1500, 100_000)
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    good = [
        ("Insert", insert()),
        ("Insert", insert(priorities=np.ones(3), stamp=Stamp(4, 1, 9))),
        ("Sample", sample((2, 3), updates=Updates(KEYS, np.ones(2)))),
        ("Update", update([1.0, 2.0])),
        ("Hello", wire.encode_json({}, reply=False)),
        ("Stats", wire.encode_json({}, reply=False)),
        ("Save", wire.encode_json({"directory": "some/where"}, reply=False)),
        ("Attach", wire.encode_json({**TICKET, "replaces": None}, reply=False)),
        ("Detach", wire.encode_json({"session": 12345}, reply=False)),
        ("Insert", encode_placed(Placement(5, 4096, 200, 0, 0), LAYOUT.table)),
        ("Sample", encode_placed(Placement(5, 0, 0, 8192, 1 << 16), LAYOUT.table, sample())),
    ]
    rare = {"Save": 20}  # an understood one writes a file
    fine = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED)
    answered = 0
    for _ in range(count):
        method, frame = good[int(rng.integers(len(good)))]
        if method in rare and rng.integers(rare[method]):
            continue
        mutated = mutate(rng, frame)
        try:
            raw_call(channel, method, mutated)
            answered += 1
        except grpc.RpcError as error:
            refused = wire.decode_error(error.details())
            assert refused is not None, (method, mutated.hex(), error.code(), error.details())
            assert error.code() in fine, (method, mutated.hex(), error.code(), error.details())
    server.shard.check_valid()
    figures.add(frames=count, understood=answered)
    assert 0 < answered < count
    with connect([server.address], prefetch=0) as replay:
        assert replay.insert(rows(5000, 7)).accepted == 7


def mutate(rng, frame):
    data = bytearray(frame)
    for _ in range(int(rng.integers(1, 4))):
        where = int(rng.integers(len(data) or 1))
        choice = int(rng.integers(6))
        if not data or choice == 0:
            data[where:where] = rng.integers(0, 256, int(rng.integers(1, 33)), dtype=np.uint8).tobytes()
        elif choice == 1:
            data[where] ^= 1 << int(rng.integers(8))
        elif choice == 2:
            data[where] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        elif choice == 3:
            del data[where:]
        elif choice == 4:
            del data[where : where + int(rng.integers(1, 17))]
        else:
            end = min(where + 8, len(data))
            data[where:end] = rng.choice([0, 2**31 - 1, 2**32 - 1, 2**63], 1).astype("<u8").tobytes()[: end - where]
    return bytes(data)


_OPENINGS = (
    b"",
    b"GET / HTTP/1.1\r\nHost: shard\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


def test_garbage_bytes_on_the_port_while_others_go_on(start_shard, soak, figures):
    """Noise after every kind of beginning, also one byte at a time; a good client's calls all succeed meanwhile."""
    shard = start_shard(capacity=10_000)
    connections = soak.count(150, 2000)
    rng = np.random.default_rng(5)
    figures.seeds(5)
    ended = threading.Event()
    wrong: list[BaseException] = []

    def good_calls():
        try:
            with connect([shard.address], spec=SPEC, prefetch=2) as replay:
                number = 0
                while not ended.is_set():
                    assert replay.insert(rows(number, 16)).accepted == 16
                    check_bodies(replay.sample(32).columns)
                    number += 16
        except BaseException as error:
            wrong.append(error)

    good = threading.Thread(target=good_calls)
    good.start()
    try:
        for _ in range(connections):
            with socket.create_connection(_where(shard.address), 5.0) as noisy:
                noise = _OPENINGS[int(rng.integers(len(_OPENINGS)))] + rng.bytes(int(rng.integers(0, 3000)))
                try:
                    if rng.random() < 0.1:
                        for byte in noise[:40]:
                            noisy.send(bytes([byte]))
                    else:
                        noisy.sendall(noise)
                    if rng.random() < 0.3:
                        noisy.settimeout(0.02)
                        noisy.recv(100)
                except OSError:
                    continue
    finally:
        ended.set()
        good.join(30)
    assert not wrong, wrong
    figures.add(connections=connections)
    assert shard.process.poll() is None
    assert shard.errors.read_text().count("Traceback") == 0


def test_2000_idle_connections_and_a_slow_one(start_shard, soak, figures):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip(f"a process may open {hard} files here, the test needs 3,000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    shard = start_shard(capacity=10_000)
    idle = []
    try:
        for number in range(2000):
            idle.append(socket.create_connection(_where(shard.address), 10.0))
            if number % 2:
                idle[-1].sendall(_OPENINGS[3])
        with connect([shard.address], spec=SPEC, prefetch=2) as replay:
            begin = time.monotonic()
            for number in range(soak.count(50, 2000)):
                assert replay.insert(rows(number * 8, 8)).accepted == 8
                assert len(replay.sample(32)) == 32
                idle[number].send(b"\x00")  # a byte now and then keeps a connection busy, not the shard
            figures.note(calls_s=round(time.monotonic() - begin, 2))
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    deadline = time.monotonic() + 20
    while len(os.listdir(f"/proc/{shard.pid}/fd")) > 100:
        assert time.monotonic() < deadline, "connections were left open"
        time.sleep(0.1)


def _where(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


def test_the_bodies_of_records_are_checked_by_these_tests():
    columns = {"id": np.arange(3), "x": body(np.arange(3))}
    check_bodies(columns)
    columns["x"][1, 0] += 1
    with pytest.raises(AssertionError, match="record 1"):
        check_bodies(columns)
