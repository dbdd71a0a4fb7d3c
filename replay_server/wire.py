"""What each frame holds: inserts, samples, updates, errors (docs/wire.md). No protobuf, no pickle."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server import errors
from replay_server.batches import KEY_DTYPE
from replay_server.errors import HeadraceError, InvalidRecord, ReplayTimeout
from replay_server.frames import PREFIX, VIEW, Frame, Layout, Memory, open_frame, places, prefix
from replay_server.messages import (
    LONGEST_WAIT_S,
    InsertReply,
    InsertRequest,
    SampleReply,
    SampleRequest,
    Stamp,
    UpdateReply,
    UpdateRequest,
    Updates,
)
from replay_server.specs import RecordSpec

SERVICE = "headrace.Replay"
METHODS = (
    "Hello",
    "Insert",
    "Sample",
    "Update",
    "Stats",
    "Clear",
    "Save",
    "BeginSave",
    "Saved",
    "ReadSaved",
    "DropSaved",
    "Attach",
    "Detach",
)
MAX_REPLY_BYTES = 64 << 20
_MOST_BATCHES = 4096
_CHUNK_BYTES = 4 << 20
_BESIDE_CHUNK_BYTES = 256 << 10
_INSERT = struct.Struct("<QdQQIIII")  # schema, wait, writer id, sequence, epoch, flags, rows, record size
_INSERT_REPLY = struct.Struct("<IIII")  # accepted, duplicates, blocked on, turned away
_SAMPLE = struct.Struct("<QddII")  # schema, wait, credit, batches, updates
_SAMPLE_REPLY = struct.Struct("<IIIIIIII")  # rows, record size, applied, stale, blocked on, 0, 0, 0
_UPDATE = struct.Struct("<QdII8x")  # schema, returned credit, updates, 0
_UPDATE_REPLY = struct.Struct("<QQ")  # applied, stale
_ROWS_START = PREFIX.size + _SAMPLE_REPLY.size + VIEW.size
_STAMPED, _PRIORITIZED, _OPENS = 1, 2, 4

_REASONS = (None, "min_size", "inserts", "samples", "snapshot", "bytes", "disk")


def max_request_bytes(spec: RecordSpec) -> int:
    """Size limit of what a client sends: a chunk of 4 MiB, or of one record, with its header and priorities."""
    return max(_CHUNK_BYTES, spec.record_size) + _BESIDE_CHUNK_BYTES


def _reason(code: int) -> str | None:
    if code >= len(_REASONS):
        raise InvalidRecord(f"unknown reason {code} for a blocked call")
    return _REASONS[code]


def insert_frame(request: InsertRequest, layout: Layout) -> Frame:
    stamp = request.stamp
    flags = (_STAMPED | (_OPENS if stamp.opens else 0)) if stamp else 0
    flags |= _PRIORITIZED if request.priorities is not None else 0
    writer_id, epoch, sequence, _ = stamp or Stamp(0, 0, 0)
    rows, size = request.records.shape
    header = _INSERT.pack(layout.schema, request.wait_s, writer_id, sequence, epoch, flags, rows, size)
    priorities = request.priorities if request.priorities is not None else np.zeros(0)
    return Frame("Insert", layout.table, header, priorities.astype("<f8", copy=False), request.records)


def encode_insert(request: InsertRequest, layout: Layout) -> bytes:
    return insert_frame(request, layout).to_bytes()


def decode_insert(frame: Memory, layout: Layout) -> InsertRequest:
    reader = open_frame(frame, "Insert", layout.table)
    schema, wait_s, writer_id, sequence, epoch, flags, rows, size = reader.header(_INSERT)
    layout.check_schema(schema)
    if size != layout.record_size:
        raise InvalidRecord(f"records of {size} bytes, the record spec says {layout.record_size}")
    if flags & ~(_STAMPED | _PRIORITIZED | _OPENS) or (flags & _OPENS and not flags & _STAMPED):
        raise InvalidRecord(f"unknown flags {flags:#x} in an insert")
    prioritized = bool(flags & _PRIORITIZED)
    priorities, records = reader.arrays(_INSERT.size, ("<f8", rows if prioritized else 0), (np.uint8, rows * size))
    return InsertRequest(
        records.reshape(rows, size),
        priorities if prioritized else None,
        Stamp(writer_id, epoch, sequence, bool(flags & _OPENS)) if flags & _STAMPED else None,
        _wait(wait_s),
    )


def encode_insert_reply(reply: InsertReply, layout: Layout) -> bytes:
    blocked = _REASONS.index(reply.blocked_on)
    header = _INSERT_REPLY.pack(reply.accepted, reply.duplicates, blocked, int(reply.turned_away))
    return Frame("InsertReply", layout.table, header + VIEW.pack(*reply.view)).to_bytes()


def decode_insert_reply(frame: Memory, layout: Layout) -> InsertReply:
    reader = open_frame(frame, "InsertReply", layout.table)
    accepted, duplicates, blocked, turned_away = reader.header(_INSERT_REPLY)
    reader.arrays(_INSERT_REPLY.size + VIEW.size)
    return InsertReply(accepted, duplicates, _reason(blocked), reader.view(_INSERT_REPLY), bool(turned_away))


def encode_sample(request: SampleRequest, layout: Layout) -> bytes:
    updates = request.updates
    header = _SAMPLE.pack(layout.schema, request.wait_s, request.credit, len(request.counts), len(updates))
    return Frame(
        "Sample", layout.table, header, request.counts.astype("<u4"), updates.keys, updates.priorities.astype("<f8")
    ).to_bytes()


def decode_sample(frame: Memory, layout: Layout) -> SampleRequest:
    """Raises InvalidRecord too when the reply would not fit into a message."""
    reader = open_frame(frame, "Sample", layout.table)
    schema, wait_s, credit, batches, updates = reader.header(_SAMPLE)
    layout.check_schema(schema)
    if batches > _MOST_BATCHES:
        raise InvalidRecord(f"{batches} batches in one sample request, at most {_MOST_BATCHES}")
    counts, keys, priorities = reader.arrays(_SAMPLE.size, ("<u4", batches), (KEY_DTYPE, updates), ("<f8", updates))
    rows = int(counts.sum(dtype=np.int64))
    if (size := reply_bytes(rows, layout.spec)) > MAX_REPLY_BYTES:
        raise InvalidRecord(f"{rows} rows make a reply of {size} bytes, a message holds {MAX_REPLY_BYTES}")
    return SampleRequest(counts.astype(np.int64), credit, Updates(keys, priorities), _wait(wait_s))


def reply_bytes(rows: int, spec: RecordSpec) -> int:
    """Bytes of a sample reply."""
    return places(_ROWS_START, _row_parts(rows, spec.record_size))[1]


def encode_sample_reply(reply: SampleReply, layout: Layout) -> bytes:
    header = _sample_reply_header(reply)
    return Frame("SampleReply", layout.table, header, reply.keys, reply.probabilities, reply.records).to_bytes()


def sample_reply_rows(
    memory: NDArray[np.uint8], rows: int, layout: Layout
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.float64]]:
    """Records, keys and probabilities of a reply inside its memory, to be drawn straight into it."""
    parts = _row_parts(rows, layout.record_size)
    starts, _ = places(_ROWS_START, parts)
    keys, probabilities, records = (
        memory[start : start + np.dtype(dtype).itemsize * count].view(dtype)
        for start, (dtype, count) in zip(starts, parts, strict=True)
    )
    return records.reshape(rows, layout.record_size), keys, probabilities


def finish_sample_reply(memory: NDArray[np.uint8], reply: SampleReply, layout: Layout) -> None:
    """Write what comes before the rows, once they are there."""
    length = reply_bytes(len(reply.records), layout.spec)
    start = prefix("SampleReply", layout.table, length) + _sample_reply_header(reply)
    memory[: len(start)] = np.frombuffer(start, np.uint8)


def _row_parts(rows: int, record_size: int) -> tuple[tuple[Any, int], ...]:
    return (KEY_DTYPE, rows), ("<f8", rows), (np.uint8, rows * record_size)


def _sample_reply_header(reply: SampleReply) -> bytes:
    rows, size = reply.records.shape
    blocked = _REASONS.index(reply.blocked_on)
    return _SAMPLE_REPLY.pack(rows, size, reply.applied, reply.stale, blocked, 0, 0, 0) + VIEW.pack(*reply.view)


def decode_sample_reply(frame: Memory, layout: Layout) -> SampleReply:
    """The arrays are read-only views of the frame."""
    reader = open_frame(frame, "SampleReply", layout.table)
    rows, size, applied, stale, blocked, *_ = reader.header(_SAMPLE_REPLY)
    keys, probabilities, records = reader.arrays(_SAMPLE_REPLY.size + VIEW.size, *_row_parts(rows, size))
    view = reader.view(_SAMPLE_REPLY)
    return SampleReply(records.reshape(rows, size), keys, probabilities, applied, stale, _reason(blocked), view)


def encode_update(request: UpdateRequest, layout: Layout) -> bytes:
    updates = request.updates
    header = _UPDATE.pack(layout.schema, request.returned, len(updates), 0)
    return Frame("Update", layout.table, header, updates.keys, updates.priorities.astype("<f8")).to_bytes()


def decode_update(frame: Memory, layout: Layout) -> UpdateRequest:
    reader = open_frame(frame, "Update", layout.table)
    schema, returned, updates, _ = reader.header(_UPDATE)
    layout.check_schema(schema)
    keys, priorities = reader.arrays(_UPDATE.size, (KEY_DTYPE, updates), ("<f8", updates))
    return UpdateRequest(Updates(keys, priorities), returned)


def encode_update_reply(reply: UpdateReply, layout: Layout) -> bytes:
    return Frame(
        "UpdateReply", layout.table, _UPDATE_REPLY.pack(reply.applied, reply.stale) + VIEW.pack(*reply.view)
    ).to_bytes()


def decode_update_reply(frame: Memory, layout: Layout) -> UpdateReply:
    reader = open_frame(frame, "UpdateReply", layout.table)
    reader.arrays(_UPDATE_REPLY.size + VIEW.size)
    applied, stale = reader.header(_UPDATE_REPLY)
    return UpdateReply(applied, stale, reader.view(_UPDATE_REPLY))


def encode_json(document: dict[str, Any], *, reply: bool, table: str = "") -> bytes:
    """Calls that are rare and small carry one JSON object; without a table they mean whatever the shard holds."""
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    return Frame("JsonReply" if reply else "Json", table, b"", text).to_bytes()


def decode_json(frame: bytes, *, reply: bool, table: str = "") -> dict[str, Any]:
    open_frame(frame, "JsonReply" if reply else "Json", table, anonymous=True)
    try:
        document = json.loads(frame[PREFIX.size :])
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"frame does not hold JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRecord("frame does not hold a JSON object")
    return document


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
