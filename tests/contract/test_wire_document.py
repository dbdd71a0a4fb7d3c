"""A client written from docs/wire.md alone: struct, json and gRPC, nothing of ours but the shard it talks to."""

import base64
import fcntl
import hashlib
import json
import math
import mmap
import os
import struct

import grpc
import pytest

from replay_server import Field, RecordSpec, start_server

INSERT, INSERT_REPLY, SAMPLE, SAMPLE_REPLY, UPDATE, UPDATE_REPLY, JSON, JSON_REPLY, PLACED, PLACED_REPLY = range(1, 11)
BLOCKED = (None, "min_size", "inserts", "samples", "snapshot", "bytes")


def aligned(offset):
    return (offset + 15) // 16 * 16


def build(kind, table, header, *arrays):
    body = header
    for array in arrays:
        body += bytes(aligned(32 + len(body)) - 32 - len(body)) + array
    return struct.pack("<4sHHQ16s", b"HDRC", 2, kind, 32 + len(body), table) + body


def split(frame, kind, table, header, *sizes):
    """The numbers of a header and the arrays behind it, given as functions of the header to sizes in bytes."""
    assert struct.unpack_from("<4sHHQ16s", frame) == (b"HDRC", 2, kind, len(frame), table)
    numbers = struct.unpack_from("<" + header, frame, 32)
    end, arrays = 32 + struct.calcsize("<" + header), []
    for size in sizes:
        start = aligned(end)
        end = start + size(numbers)
        arrays.append(frame[start:end])
    assert end == len(frame)
    return numbers, *arrays


class TinyClient:
    """Everything the page describes, for one shard."""

    def __init__(self, address):
        self._channel = grpc.insecure_channel(address)
        self.table = bytes(16)
        self.hello = self.ask("Hello", {})
        self.table = self.hello["table"].encode().ljust(16, b"\0")
        spec = self.hello["spec"]
        self.schema = struct.unpack("<Q", hashlib.sha256(canonical(spec).encode()).digest()[:8])[0]
        self.offsets, self.record_size = layout(spec["fields"])

    def call(self, method, frame):
        return self._channel.unary_unary(f"/headrace.Replay/{method}")(frame, timeout=10)

    def ask(self, method, document):
        reply = self.call(method, build(JSON, self.table, json.dumps(document).encode()))
        assert struct.unpack_from("<4sHHQ", reply) == (b"HDRC", 2, JSON_REPLY, len(reply))
        return json.loads(reply[32:])

    def insert_frame(self, records, priorities=None, stamp=None, opens=False):
        rows = len(records) // self.record_size
        flags = (1 if stamp else 0) | (2 if priorities else 0) | (4 if opens else 0)
        writer, epoch, sequence = stamp or (0, 0, 0)
        header = struct.pack("<QdQQIIII", self.schema, 0.2, writer, sequence, epoch, flags, rows, self.record_size)
        return build(
            INSERT, self.table, header, struct.pack(f"<{len(priorities or ())}d", *(priorities or ())), records
        )

    def insert_reply(self, reply):
        ((accepted, duplicates, blocked, zero, *view),) = split(reply, INSERT_REPLY, self.table, "IIIIdQQd")
        assert zero == 0
        return accepted, duplicates, BLOCKED[blocked], view

    def insert(self, *args, **kwargs):
        return self.insert_reply(self.call("Insert", self.insert_frame(*args, **kwargs)))

    def sample_frame(self, counts, credit, keys=(), priorities=()):
        header = struct.pack("<QddII", self.schema, 0.2, credit, len(counts), len(keys))
        return build(
            SAMPLE,
            self.table,
            header,
            struct.pack(f"<{len(counts)}I", *counts),
            b"".join(keys),
            struct.pack(f"<{len(priorities)}d", *priorities),
        )

    def sample_reply(self, reply):
        (rows, size, applied, stale, blocked, a, b, c, *view), keys, probabilities, records = split(
            reply,
            SAMPLE_REPLY,
            self.table,
            "IIIIIIIIdQQd",
            lambda h: 16 * h[0],
            lambda h: 8 * h[0],
            lambda h: h[0] * h[1],
        )
        assert (a, b, c) == (0, 0, 0)
        assert size == self.record_size
        keys = [keys[16 * i : 16 * i + 16] for i in range(rows)]
        records = [records[size * i : size * i + size] for i in range(rows)]
        probabilities = struct.unpack(f"<{rows}d", probabilities)
        return keys, probabilities, records, (applied, stale), BLOCKED[blocked], view

    def sample(self, *args):
        return self.sample_reply(self.call("Sample", self.sample_frame(*args)))

    def update(self, keys, priorities, returned=0.0):
        header = struct.pack("<QdII8x", self.schema, returned, len(keys), 0)
        frame = build(UPDATE, self.table, header, b"".join(keys), struct.pack(f"<{len(keys)}d", *priorities))
        ((applied, stale, *view),) = split(self.call("Update", frame), UPDATE_REPLY, self.table, "QQdQQd")
        return applied, stale, view

    def pack(self, numbers):
        records = bytearray(self.record_size * len(numbers))
        for row, number in enumerate(numbers):
            start = row * self.record_size
            struct.pack_into("<5f", records, start + self.offsets["vector"], *[float(number)] * 5)
            struct.pack_into("<?", records, start + self.offsets["flag"], number % 2 == 0)
            struct.pack_into("<q", records, start + self.offsets["number"], number)
        return bytes(records)

    def number(self, record):
        (number,) = struct.unpack_from("<q", record, self.offsets["number"])
        assert record == self.pack([number])
        return number


SIZES = {"float32": 4, "int64": 8, "bool": 1}


def layout(fields):
    offsets, end = {}, 0
    for field in fields:
        item = SIZES[field["dtype"]]
        size = item * math.prod(field["shape"])
        alignment = 16 if size >= 16 else item
        offsets[field["name"]] = start = -(-end // alignment) * alignment
        end = start + size
    return offsets, aligned(end)


def canonical(spec):
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


SPEC = RecordSpec(
    (Field("flag", "bool"), Field("vector", "float32", (5,)), Field("number", "int64")), {"gamma": "0.99", "was": "für"}
)


@pytest.fixture
def server():
    with start_server(SPEC, 500, seed=1, shard_index=3) as running:
        yield running


@pytest.fixture
def client(server):
    return TinyClient(server.address)


def test_it_is_greeted(client):
    assert (client.hello["shard"], client.hello["capacity"], client.hello["min_size"]) == (3, 500, 1)
    assert client.hello["max_message_bytes"] == 64 << 20
    assert client.hello["max_request_bytes"] == (4 << 20) + (256 << 10)
    assert (client.hello["durability"], client.hello["consuming"]) == ("checkpoint", False)
    assert client.record_size == SPEC.record_size


def test_it_inserts_samples_updates_and_reads_statistics(client, server):
    priorities = [float(number + 1) for number in range(100)]
    assert client.insert(client.pack(range(100)), priorities)[:3] == (100, 0, None)
    keys, probabilities, records, counts, blocked, view = client.sample([30, 20], 50.0)
    assert (len(keys), counts, blocked, view[1:]) == (50, (0, 0), None, [100, 100, 50.0])
    mass = sum(priority**0.6 for priority in priorities)
    assert view[0] == pytest.approx(mass)
    for record, probability in zip(records, probabilities, strict=True):
        assert probability == pytest.approx((client.number(record) + 1) ** 0.6 / mass)
    applied, stale, view = client.update(keys, [0.0] * 50, returned=10.0)
    assert (applied, stale, view[3]) == (50, 0, 40.0)
    drawn = {client.number(record) for record in records}
    again = client.sample([64], 0.0, [keys[0], bytes(16)], [1e6, 1.0])
    assert again[3] == (1, 1)
    assert {client.number(record) for record in again[2]} & drawn == {client.number(records[0])}
    stats = client.ask("Stats", {})
    assert (stats["size"], stats["inserted"], stats["sampled"], stats["blocked_on"]) == (100, 100, 40.0, None)
    assert client.ask("Clear", {})["size"] == 0
    assert client.sample([4], 4.0)[4] == "min_size"
    server.shard.check_valid()


def test_it_begins_a_save_and_asks_after_it(tmp_path):
    with start_server(SPEC, 500, directory=str(tmp_path)) as server:
        client = TinyClient(server.address)
        client.insert(client.pack(range(100)))
        assert client.ask("BeginSave", {"directory": "1"}) == {"name": "replay-0.h5"}
        while not (file := client.ask("Saved", {"directory": "1"}))["done"]:
            pass
        content = (tmp_path / "1" / "replay-0.h5").read_bytes()
        assert file == {
            "path": str(tmp_path / "1" / "replay-0.h5"), "done": True, "bytes": len(content),
            "checksum": struct.unpack("<I", content[-4:])[0],
        }  # fmt: skip
        pieces = [client.ask("ReadSaved", {"directory": "1", "offset": at})["base64"] for at in (0, len(content))]
        assert [base64.b64decode(piece) for piece in pieces] == [content, b""]
        assert client.ask("DropSaved", {"directory": "1"}) == {}
        assert list(tmp_path.iterdir()) == []


def test_its_chunks_are_stored_once(client):
    chunk = client.pack(range(10))
    with pytest.raises(grpc.RpcError) as caught:
        client.insert(chunk, stamp=(7, 0, 0))
    assert json.loads(caught.value.details())["error"] == "WriterEvicted"
    assert client.insert(chunk, stamp=(7, 0, 0), opens=True)[:2] == (10, 0)
    assert client.insert(chunk, stamp=(7, 0, 0), opens=True)[:2] == (0, 10)
    assert client.insert(chunk, stamp=(7, 0, 1))[:2] == (10, 0)
    assert client.insert(chunk, stamp=(7, 1, 0), opens=True)[:2] == (10, 0)
    with pytest.raises(grpc.RpcError) as caught:
        client.insert(chunk, stamp=(7, 0, 2))
    assert (caught.value.code(), json.loads(caught.value.details())["error"]) == (
        grpc.StatusCode.ABORTED,
        "StaleEpoch",
    )


def test_it_is_refused_by_name(client):
    def refusal(method, frame):
        with pytest.raises(grpc.RpcError) as caught:
            client.call(method, frame)
        return json.loads(caught.value.details())["error"]

    good = client.sample_frame([1], 1.0)
    assert refusal("Sample", good[:-1]) == "InvalidRecord"
    assert refusal("Sample", good[:4] + b"\x01\x00" + good[6:]) == "SchemaMismatch"
    assert refusal("Sample", good[:16] + b"other".ljust(16, b"\0") + good[32:]) == "SchemaMismatch"
    assert refusal("Sample", good[:32] + bytes(8) + good[40:]) == "SchemaMismatch"
    assert refusal("Insert", client.insert_frame(client.pack([1]), [float("nan")])) == "InvalidRecord"
    assert client.ask("Stats", {})["inserted"] == 0


def test_it_shares_memory(client, server):
    size = 1 << 20
    descriptor = os.memfd_create("headrace-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    os.posix_fallocate(descriptor, 0, size)
    memory = mmap.mmap(descriptor, size)
    memory[:32] = nonce = os.urandom(32)
    ticket = {"pid": os.getpid(), "descriptor": descriptor, "inode": os.fstat(descriptor).st_ino, "size": size}
    session = client.ask("Attach", {**ticket, "nonce": nonce.hex(), "replaces": None})["session"]

    insert = client.insert_frame(client.pack(range(50)))
    memory[4096 : 4096 + len(insert)] = insert
    placed = build(PLACED, client.table, struct.pack("<QQQQQ8x", session, 4096, len(insert), 0, 0))
    assert client.insert_reply(client.call("Insert", placed))[:3] == (50, 0, None)

    place = struct.pack("<QQQQQ8x", session, 0, 0, 65536, 65536)
    reply = client.call("Sample", build(PLACED, client.table, place + client.sample_frame([64], 64.0)))
    ((length,),) = split(reply, PLACED_REPLY, client.table, "Q8x")
    keys, probabilities, records, _, blocked, _ = client.sample_reply(memory[65536 : 65536 + length])
    assert (len(keys), blocked, set(probabilities)) == (64, None, {1 / 50})
    assert {client.number(record) for record in records} <= set(range(50))

    too_large = build(PLACED, client.table, place + client.sample_frame([2000], 2000.0))
    assert len(client.sample_reply(client.call("Sample", too_large))[0]) == 2000

    client.ask("Detach", {"session": session})
    with pytest.raises(grpc.RpcError) as caught:
        client.call("Insert", placed)
    assert json.loads(caught.value.details())["error"] == "NotShared"
    memory.close()
    os.close(descriptor)
    assert server.shard.stats().inserted == 50
