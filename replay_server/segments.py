"""The bytes of a journal's segment files; docs/journal.md draws them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from replay_server.disk import Part
from replay_server.messages import Stamp
from replay_server.specs import RecordSpec
from replay_server.table import Checked

VERSION = 1
LEVELS = {"journal": 1, "fsync": 2}

_HEAD = struct.Struct("<8sII32sQQQII")  # magic, version, shard, digest, number, previous, capacity, record size, level
_CHECKSUM = struct.Struct("<I")
_DURABLE = struct.Struct("<IQ")  # checksum, lsn
_ENTRY = struct.Struct("<4sHHQQQQQdQI")  # magic, kind, 0, length, lsn, durable, live, counters, payload's checksum
_INSERT = struct.Struct("<QQQIIIId")  # writer, epoch, sequence, rows, flags, first slot, 0, priority
_EPOCH = struct.Struct("<QQ")  # writer, epoch

_FILE_MAGIC = b"HDRCJRNL"
_ENTRY_MAGIC = b"HRJE"
_STAMPED, _SLOTS_LISTED, _PRIORITIES_LISTED = 1, 2, 4

DURABLE_AT = _HEAD.size + _CHECKSUM.size
HEAD_BYTES = DURABLE_AT + _DURABLE.size
ENTRY_BYTES = _ENTRY.size + _CHECKSUM.size


class Kind(IntEnum):
    STATE = 1
    INSERT = 2
    REMOVE = 3
    EPOCH = 4
    CLEAR = 5


class Counters(NamedTuple):
    """A shard's, after the operation that is written: rows ever inserted, credits ever sampled, rows ever fenced."""

    inserted: int = 0
    sampled: float = 0.0
    fenced: int = 0


class Damage(Exception):
    """Bytes that are not what was written.

    `torn`: a write that ended early looks like this. `end`: where the next entry begins, when that is known.
    """

    def __init__(self, reason: str, *, torn: bool = False, end: int | None = None) -> None:
        super().__init__(reason)
        self.torn = torn
        self.end = end


@dataclass(frozen=True)
class Identity:
    """Whose journal it is."""

    spec: RecordSpec
    shard: int
    capacity: int

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.spec.digest)


@dataclass(frozen=True)
class Head:
    """The first bytes of a segment file.

    Attributes:
        number: of the segment, also in its name.
        previous: lsn of the last entry before this segment.
        capacity: of the table that wrote it.
        level: `journal` or `fsync`.
        durable: lsn up to which the writer knew its entries to survive a power loss; 0 when it did not say.
    """

    number: int
    previous: int
    capacity: int
    level: str
    durable: int = 0


class Entry(NamedTuple):
    """The header of an entry, and where its payload lies in the file."""

    kind: Kind
    lsn: int
    durable: int
    live: int
    counters: Counters
    start: int
    end: int


@dataclass(frozen=True)
class State:
    """Writer marks as JSON values, and the position of the snapshot this journal continues (0: none)."""

    writers: Sequence[Sequence[Any]]
    base: int


@dataclass(frozen=True)
class Insert:
    slots: NDArray[np.int64]
    rows: Checked
    stamp: Stamp | None


@dataclass(frozen=True)
class Remove:
    slots: NDArray[np.int64]


@dataclass(frozen=True)
class Epoch:
    writer_id: int
    epoch: int


@dataclass(frozen=True)
class Clear:
    pass


Change = State | Insert | Remove | Epoch | Clear


def checksum(parts: list[Part]) -> int:
    """CRC32C of all parts, one after the other."""
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, part)
    return value


def pack_head(identity: Identity, head: Head) -> bytes:
    fixed = _HEAD.pack(
        _FILE_MAGIC,
        VERSION,
        identity.shard,
        identity.digest,
        head.number,
        head.previous,
        head.capacity,
        identity.spec.record_size,
        LEVELS[head.level],
    )
    return fixed + _CHECKSUM.pack(checksum([fixed])) + pack_durable(head.durable)


def pack_durable(lsn: int) -> bytes:
    """What lies at DURABLE_AT, the only bytes of a segment that are ever written twice."""
    return _DURABLE.pack(checksum([lsn.to_bytes(8, "little")]), lsn)


def read_head(data: bytes, identity: Identity, number: int) -> Head:
    """Raises Damage, or ValueError with what it belongs to instead."""
    if len(data) < HEAD_BYTES or not any(data[:HEAD_BYTES]):
        raise Damage("its header is not complete", torn=True)
    magic, version, shard, digest, written, previous, capacity, size, level = _HEAD.unpack_from(data)
    if magic != _FILE_MAGIC or _CHECKSUM.unpack_from(data, _HEAD.size)[0] != checksum([data[: _HEAD.size]]):
        raise Damage("its header fails its checksum")
    if version != VERSION:
        raise ValueError(f"has format {version}, this program reads format {VERSION}")
    if shard != identity.shard:
        raise ValueError(f"belongs to shard {shard}, this is shard {identity.shard}")
    if digest != identity.digest or size != identity.spec.record_size:
        raise ValueError("holds records of another spec (other fields or semantics)")
    if capacity > identity.capacity:
        raise ValueError(f"was written with capacity {capacity}, more than the {identity.capacity} configured now")
    if written != number:
        raise ValueError(f"is segment {written} under another one's name")
    names = {code: name for name, code in LEVELS.items()}
    check, durable = _DURABLE.unpack_from(data, DURABLE_AT)
    if check != checksum([durable.to_bytes(8, "little")]):
        durable = 0  # rewritten in place, so a power loss may take it: no more than not knowing
    return Head(number, previous, capacity, names[level], durable)


def pack_entry(kind: Kind, lsn: int, durable: int, live: int, counters: Counters, payload: list[Part]) -> bytes:
    """The header before `payload`."""
    length = sum(part.nbytes if isinstance(part, np.ndarray) else len(part) for part in payload)
    fixed = _ENTRY.pack(_ENTRY_MAGIC, kind, 0, length, lsn, durable, live, *counters, checksum(payload))
    return fixed + _CHECKSUM.pack(checksum([fixed]))


def read_entry(data: bytes, at: int) -> Entry:
    """The entry at byte `at` of a segment file; raises Damage."""
    rest = len(data) - at
    if rest < ENTRY_BYTES:
        raise Damage("the file ends inside an entry", torn=True)
    magic, kind, zero, length, lsn, durable, live, *counters, payload = _ENTRY.unpack_from(data, at)
    fixed = data[at : at + _ENTRY.size]
    if magic != _ENTRY_MAGIC or _CHECKSUM.unpack_from(data, at + _ENTRY.size)[0] != checksum([fixed]):
        raise Damage(
            "the header of an entry fails its checksum", torn=not np.frombuffer(data, np.uint8, offset=at).any()
        )
    start, end = at + ENTRY_BYTES, at + ENTRY_BYTES + length
    if end > len(data):
        raise Damage("the file ends inside an entry", torn=True)
    if payload != checksum([np.frombuffer(data, np.uint8, length, start)]):
        raise Damage(f"entry {lsn} fails its checksum", end=end)
    if zero or kind not in list(Kind):
        raise Damage(f"entry {lsn} is of unknown kind {kind}", end=end)
    return Entry(Kind(kind), lsn, durable, live, Counters(*counters), start, end)


def find_entry(data: bytes, at: int) -> Entry | None:
    """The first whole entry from byte `at` on."""
    while (at := data.find(_ENTRY_MAGIC, at)) >= 0:
        try:
            return read_entry(data, at)
        except Damage:
            at += 1
    return None


def pack_state(state: State) -> list[Part]:
    return [json.dumps({"writers": state.writers, "base": state.base}).encode()]


def pack_insert(
    slots: NDArray[np.int64], rows: Checked, stamp: Stamp | None, priority: float, capacity: int
) -> list[Part]:
    """Slots that follow one another modulo `capacity` take 4 bytes together, priorities that are all equal 8."""
    count = len(slots)
    flags = _STAMPED if stamp is not None else 0
    writer_id, epoch, sequence = (0, 0, 0) if stamp is None else stamp[:3]
    listed: list[Part] = []
    first = int(slots[0]) if count else 0
    last_follows = count == 0 or slots[-1] == (first + count - 1) % capacity
    if not (last_follows and (slots == (first + np.arange(count)) % capacity).all()):
        flags |= _SLOTS_LISTED
        listed.append(slots.astype("<u4"))
    if rows.priorities is not None and count:
        priority = float(rows.priorities[0])
        if (rows.priorities != priority).any():
            flags |= _PRIORITIES_LISTED
            listed.append(np.ascontiguousarray(rows.priorities, "<f8"))
    fixed = _INSERT.pack(writer_id, epoch, sequence, count, flags, first, 0, priority)
    return [fixed, *listed, np.ascontiguousarray(rows.records)]


def pack_slots(slots: NDArray[np.int64]) -> list[Part]:
    return [slots.astype("<u4")]


def pack_epoch(writer_id: int, epoch: int) -> list[Part]:
    return [_EPOCH.pack(writer_id, epoch)]


def read_change(data: bytes, entry: Entry, head: Head, record_size: int) -> Change:
    """What an entry says; raises Damage when it does not fit the table it was written for."""
    readers: dict[Kind, Callable[[], Change]] = {
        Kind.STATE: lambda: _read_state(data[entry.start : entry.end]),
        Kind.INSERT: lambda: _read_insert(data, entry, head, record_size),
        Kind.REMOVE: lambda: Remove(np.frombuffer(data[entry.start : entry.end], "<u4").astype(np.int64)),
        Kind.EPOCH: lambda: Epoch(*_EPOCH.unpack(data[entry.start : entry.end])),
        Kind.CLEAR: Clear,
    }
    try:
        change = readers[entry.kind]()
        slots = change.slots if isinstance(change, Insert | Remove) else np.zeros(0, np.int64)
        if len(slots) and slots.max() >= head.capacity:
            raise ValueError
    except (ValueError, KeyError, TypeError, struct.error):
        raise Damage(f"entry {entry.lsn} does not fit its table", end=entry.end) from None
    return change


def _read_state(payload: bytes) -> State:
    values = json.loads(payload)
    return State(values["writers"], int(values["base"]))


def _read_insert(data: bytes, entry: Entry, head: Head, record_size: int) -> Insert:
    writer_id, epoch, sequence, count, flags, first, _, priority = _INSERT.unpack_from(data, entry.start)
    at = entry.start + _INSERT.size
    listed = count * (4 * bool(flags & _SLOTS_LISTED) + 8 * bool(flags & _PRIORITIES_LISTED))
    if at + listed + count * record_size != entry.end:
        raise ValueError
    slots = (first + np.arange(count)) % head.capacity
    if flags & _SLOTS_LISTED:
        slots = np.frombuffer(data, "<u4", count, at).astype(np.int64)
        at += 4 * count
    priorities = np.full(count, priority)
    if flags & _PRIORITIES_LISTED:
        priorities = np.frombuffer(data, "<f8", count, at).astype(np.float64)
        at += 8 * count
    records = np.frombuffer(data, np.uint8, count * record_size, at).reshape(count, record_size)
    stamp = Stamp(writer_id, epoch, sequence) if flags & _STAMPED else None
    return Insert(slots, Checked(records, priorities), stamp)
