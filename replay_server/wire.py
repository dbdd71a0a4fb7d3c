"""Frames: a fixed little-endian header, then raw arrays (docs/wire.md). No protobuf, no pickle.

Decoders trust nothing: a frame that is not exactly as long as its counts say is refused with InvalidRecord.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from replay_server import errors
from replay_server.batches import KEY_DTYPE
from replay_server.errors import HeadraceError, InvalidRecord, ReplayTimeout, SchemaMismatch
from replay_server.messages import (
    LONGEST_WAIT_S,
    Hello,
    InsertReply,
    InsertRequest,
    SampleReply,
    SampleRequest,
    Stamp,
    UpdateReply,
    UpdateRequest,
    Updates,
    View,
)
from replay_server.replay import ShardStats
from replay_server.specs import RecordSpec

SERVICE = "headrace.Replay"
MAX_MESSAGE_BYTES = 64 << 20
_MAGIC = b"HDRC"
_VERSION = 1
_PREFIX = struct.Struct("<4sHHQ")  # magic, protocol version, kind, bytes of the whole frame
_VIEW = struct.Struct("<dQQd")  # mass, size, inserted, sampled
_INSERT = struct.Struct("<QdQQIIII")  # schema, wait, writer id, sequence, epoch, flags, rows, record size
_INSERT_REPLY = struct.Struct("<IIII")  # accepted, duplicates, blocked on, 0
_SAMPLE = struct.Struct("<QddII")  # schema, wait, credit, batches, updates
_SAMPLE_REPLY = struct.Struct("<IIIIIIII")  # rows, record size, applied, stale, blocked on, 0, 0, 0
_UPDATE = struct.Struct("<QdII8x")  # schema, returned credit, updates, 0
_UPDATE_REPLY = struct.Struct("<QQ")  # applied, stale
_STAMPED, _PRIORITIZED = 1, 2

_REASONS = (None, "min_size", "inserts", "samples", "snapshot", "bytes")

_KINDS = {
    name: kind
    for kind, name in enumerate(
        ("Insert", "InsertReply", "Sample", "SampleReply", "Update", "UpdateReply", "Json", "JsonReply"), start=1
    )
}


def schema_of(spec: RecordSpec) -> int:
    """The first 8 bytes of the spec's digest, carried by every frame that depends on the layout."""
    return int.from_bytes(bytes.fromhex(spec.digest)[:8], "little")


class _Reader(NamedTuple):
    """Takes arrays off a frame one after the other; each starts at a multiple of 16."""

    frame: bytes

    def header(self, layout: struct.Struct) -> tuple[Any, ...]:
        try:
            return layout.unpack_from(self.frame, _PREFIX.size)
        except struct.error:
            raise InvalidRecord(f"frame of {len(self.frame)} bytes is too short for its header") from None

    def view(self, layout: struct.Struct) -> View:
        try:
            return View(*_VIEW.unpack_from(self.frame, _PREFIX.size + layout.size))
        except struct.error:
            raise InvalidRecord(f"frame of {len(self.frame)} bytes is too short for its header") from None

    def arrays(self, start: int, *parts: tuple[Any, int]) -> list[NDArray[Any]]:
        """One read-only view per (dtype, count); refuses a frame that holds more or less."""
        offsets, end = [], start
        for dtype, count in parts:
            end = _aligned(end)
            offsets.append(end)
            end += np.dtype(dtype).itemsize * count
        if end != len(self.frame):
            raise InvalidRecord(f"frame has {len(self.frame)} bytes, its header says {end}")
        return [
            np.frombuffer(self.frame, dtype, count, offset)
            for (dtype, count), offset in zip(parts, offsets, strict=True)
        ]


def _aligned(offset: int) -> int:
    return -(-offset // 16) * 16


def _frame(kind: str, headers: bytes, *arrays: NDArray[Any]) -> bytes:
    parts: list[Any] = [b"", headers]
    end = _PREFIX.size + len(headers)
    for array in arrays:
        parts.append(bytes(_aligned(end) - end))
        parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        end = _aligned(end) + array.nbytes
    parts[0] = _PREFIX.pack(_MAGIC, _VERSION, _KINDS[kind], end)
    return b"".join(parts)


def _open(frame: bytes, kind: str) -> _Reader:
    if len(frame) < _PREFIX.size:
        raise InvalidRecord(f"frame of {len(frame)} bytes is too short for its header")
    magic, version, found, length = _PREFIX.unpack_from(frame)
    if magic != _MAGIC:
        raise InvalidRecord("not a headrace frame")
    if version != _VERSION:
        raise SchemaMismatch(f"peer speaks protocol version {version}, this side version {_VERSION}")
    if found != _KINDS[kind]:
        raise InvalidRecord(f"frame of kind {found}, expected {_KINDS[kind]} ({kind})")
    if length != len(frame):
        raise InvalidRecord(f"frame has {len(frame)} bytes, its header says {length}")
    return _Reader(frame)


def _check_schema(schema: int, spec: RecordSpec) -> None:
    if schema != schema_of(spec):
        raise SchemaMismatch("the client's record spec is not this shard's; connect again to see the difference")


def _reason(code: int) -> str | None:
    if code >= len(_REASONS):
        raise InvalidRecord(f"unknown reason {code} for a blocked call")
    return _REASONS[code]


def encode_insert(request: InsertRequest, schema: int) -> bytes:
    stamp = request.stamp or Stamp(0, 0, 0)
    flags = (_STAMPED if request.stamp else 0) | (_PRIORITIZED if request.priorities is not None else 0)
    rows, size = request.records.shape
    header = _INSERT.pack(schema, request.wait_s, stamp.writer_id, stamp.sequence, stamp.epoch, flags, rows, size)
    priorities = request.priorities if request.priorities is not None else np.zeros(0)
    return _frame("Insert", header, priorities.astype("<f8", copy=False), request.records)


def decode_insert(frame: bytes, spec: RecordSpec) -> InsertRequest:
    reader = _open(frame, "Insert")
    schema, wait_s, writer_id, sequence, epoch, flags, rows, size = reader.header(_INSERT)
    _check_schema(schema, spec)
    if size != spec.record_size:
        raise InvalidRecord(f"records of {size} bytes, the record spec says {spec.record_size}")
    if flags & ~(_STAMPED | _PRIORITIZED):
        raise InvalidRecord(f"unknown flags {flags:#x} in an insert")
    prioritized = bool(flags & _PRIORITIZED)
    priorities, records = reader.arrays(
        _PREFIX.size + _INSERT.size, ("<f8", rows if prioritized else 0), (np.uint8, rows * size)
    )
    return InsertRequest(
        records.reshape(rows, size),
        priorities if prioritized else None,
        Stamp(writer_id, epoch, sequence) if flags & _STAMPED else None,
        _wait(wait_s),
    )


def encode_insert_reply(reply: InsertReply) -> bytes:
    header = _INSERT_REPLY.pack(reply.accepted, reply.duplicates, _REASONS.index(reply.blocked_on), 0)
    return _frame("InsertReply", header + _VIEW.pack(*reply.view))


def decode_insert_reply(frame: bytes) -> InsertReply:
    reader = _open(frame, "InsertReply")
    accepted, duplicates, blocked, _ = reader.header(_INSERT_REPLY)
    reader.arrays(_PREFIX.size + _INSERT_REPLY.size + _VIEW.size)
    return InsertReply(accepted, duplicates, _reason(blocked), reader.view(_INSERT_REPLY))


def encode_sample(request: SampleRequest, schema: int) -> bytes:
    updates = request.updates
    header = _SAMPLE.pack(schema, request.wait_s, request.credit, len(request.counts), len(updates))
    return _frame("Sample", header, request.counts.astype("<u4"), updates.keys, updates.priorities.astype("<f8"))


def decode_sample(frame: bytes, spec: RecordSpec) -> SampleRequest:
    """Raises InvalidRecord too when the reply would not fit into a message."""
    reader = _open(frame, "Sample")
    schema, wait_s, credit, batches, updates = reader.header(_SAMPLE)
    _check_schema(schema, spec)
    counts, keys, priorities = reader.arrays(
        _PREFIX.size + _SAMPLE.size, ("<u4", batches), (KEY_DTYPE, updates), ("<f8", updates)
    )
    rows = int(counts.sum(dtype=np.int64))
    if (size := reply_bytes(rows, spec)) > MAX_MESSAGE_BYTES:
        raise InvalidRecord(f"{rows} rows make a reply of {size} bytes, a message holds {MAX_MESSAGE_BYTES}")
    return SampleRequest(counts.astype(np.int64), credit, Updates(keys, priorities), _wait(wait_s))


def reply_bytes(rows: int, spec: RecordSpec) -> int:
    """Bytes of a sample reply, rounded up."""
    return 256 + rows * (spec.record_size + KEY_DTYPE.itemsize + 8)


def encode_sample_reply(reply: SampleReply) -> bytes:
    rows, size = reply.records.shape
    header = _SAMPLE_REPLY.pack(
        rows, size, reply.applied, reply.stale, _REASONS.index(reply.blocked_on), 0, 0, 0
    ) + _VIEW.pack(*reply.view)
    return _frame("SampleReply", header, reply.keys, reply.probabilities, reply.records)


def decode_sample_reply(frame: bytes) -> SampleReply:
    """The arrays are read-only views of the frame."""
    reader = _open(frame, "SampleReply")
    rows, size, applied, stale, blocked, *_ = reader.header(_SAMPLE_REPLY)
    keys, probabilities, records = reader.arrays(
        _PREFIX.size + _SAMPLE_REPLY.size + _VIEW.size, (KEY_DTYPE, rows), ("<f8", rows), (np.uint8, rows * size)
    )
    view = reader.view(_SAMPLE_REPLY)
    return SampleReply(records.reshape(rows, size), keys, probabilities, applied, stale, _reason(blocked), view)


def encode_update(request: UpdateRequest, schema: int) -> bytes:
    updates = request.updates
    header = _UPDATE.pack(schema, request.returned, len(updates), 0)
    return _frame("Update", header, updates.keys, updates.priorities.astype("<f8"))


def decode_update(frame: bytes, spec: RecordSpec) -> UpdateRequest:
    reader = _open(frame, "Update")
    schema, returned, updates, _ = reader.header(_UPDATE)
    _check_schema(schema, spec)
    keys, priorities = reader.arrays(_PREFIX.size + _UPDATE.size, (KEY_DTYPE, updates), ("<f8", updates))
    return UpdateRequest(Updates(keys, priorities), returned)


def encode_update_reply(reply: UpdateReply) -> bytes:
    return _frame("UpdateReply", _UPDATE_REPLY.pack(reply.applied, reply.stale) + _VIEW.pack(*reply.view))


def decode_update_reply(frame: bytes) -> UpdateReply:
    reader = _open(frame, "UpdateReply")
    reader.arrays(_PREFIX.size + _UPDATE_REPLY.size + _VIEW.size)
    applied, stale = reader.header(_UPDATE_REPLY)
    return UpdateReply(applied, stale, reader.view(_UPDATE_REPLY))


def encode_json(document: dict[str, Any], *, reply: bool) -> bytes:
    """Calls that are rare and small carry one JSON object."""
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    return _frame("JsonReply" if reply else "Json", b"", text)


def decode_json(frame: bytes, *, reply: bool) -> dict[str, Any]:
    reader = _open(frame, "JsonReply" if reply else "Json")
    try:
        document = json.loads(reader.frame[_PREFIX.size :])
    except ValueError as error:
        raise InvalidRecord(f"frame does not hold JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRecord("frame does not hold a JSON object")
    return document


def hello_document(hello: Hello) -> dict[str, Any]:
    return {
        "address": hello.address,
        "shard": hello.shard,
        "incarnation": hello.incarnation,
        "capacity": hello.capacity,
        "min_size": hello.min_size,
        "max_message_bytes": hello.max_message_bytes,
        "spec": json.loads(hello.spec.to_json()),
        "durability": hello.durability,
        "consuming": hello.consuming,
    }


def hello_from(document: dict[str, Any]) -> Hello:
    try:
        spec = RecordSpec.from_json(json.dumps(document["spec"]))
        return Hello(
            address=str(document["address"]),
            shard=int(document["shard"]),
            incarnation=int(document["incarnation"]),
            capacity=int(document["capacity"]),
            min_size=int(document["min_size"]),
            max_message_bytes=int(document["max_message_bytes"]),
            spec=spec,
            durability=str(document["durability"]),
            consuming=bool(document["consuming"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SchemaMismatch(f"the shard's greeting is not understood: {error}") from None


def stats_from(document: dict[str, Any]) -> ShardStats:
    try:
        return msgspec.convert(document, ShardStats)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(f"the shard's statistics are not understood: {error}") from None


def encode_error(error: HeadraceError) -> str:
    """The details text that travels beside a gRPC status code."""
    document = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, ReplayTimeout):
        document["blocked_on"] = error.blocked_on
    return json.dumps(document)


def decode_error(details: str) -> HeadraceError | None:
    """The error that was raised on the other side; None when the text is not ours."""
    try:
        document = json.loads(details)
        kind = getattr(errors, document["error"])
        if kind is ReplayTimeout:
            return ReplayTimeout(document["message"], document["blocked_on"])
        if isinstance(kind, type) and issubclass(kind, HeadraceError):
            return kind(document["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _wait(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT_S) if seconds == seconds else 0.0
