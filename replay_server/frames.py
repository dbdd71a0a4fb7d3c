"""The outside of every frame: a 32-byte little-endian prefix, a fixed header, arrays at multiples of 16 (docs/wire.md).

Nothing that arrives is trusted: a frame that is not exactly as long as its counts say is refused with InvalidRecord.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay_server.errors import ConfigError, InvalidRecord, SchemaMismatch
from replay_server.messages import View
from replay_server.specs import RecordSpec

VERSION = 2
DEFAULT_TABLE = "replay"
PREFIX = struct.Struct("<4sHHQ16s")  # magic, protocol version, kind, bytes of the whole frame, table
VIEW = struct.Struct("<dQQd")  # mass, size, inserted, sampled
_MAGIC = b"HDRC"
_LONGEST_NAME = 16

KINDS = {
    name: kind
    for kind, name in enumerate(
        (
            "Insert",
            "InsertReply",
            "Sample",
            "SampleReply",
            "Update",
            "UpdateReply",
            "Json",
            "JsonReply",
            "Placed",
            "PlacedReply",
        ),
        start=1,
    )
}

Memory = bytes | memoryview
"""A frame as it came: a message, or a part of memory shared with the other side."""


def schema_of(spec: RecordSpec) -> int:
    """The first 8 bytes of the spec's digest, carried by every frame that depends on the layout."""
    return int.from_bytes(bytes.fromhex(spec.digest)[:8], "little")


def table_name(name: str) -> bytes:
    """The 16 bytes of a table's name in a prefix; raises ConfigError on a name that does not fit."""
    if not (name.isascii() and name.isprintable() and len(name) <= _LONGEST_NAME):
        raise ConfigError(f"table name {name!r}: at most {_LONGEST_NAME} printable ASCII characters")
    return name.encode().ljust(_LONGEST_NAME, b"\0")


@dataclass(frozen=True)
class Layout:
    """What both ends of a connection have to agree on: the records and the table's name, 1 to 16 ASCII characters."""

    spec: RecordSpec
    table: str = DEFAULT_TABLE

    def __post_init__(self) -> None:
        if not table_name(self.table).strip(b"\0"):
            raise ConfigError("a table's name is empty")

    @cached_property
    def schema(self) -> int:
        return schema_of(self.spec)

    @cached_property
    def record_size(self) -> int:
        return self.spec.record_size

    def check_schema(self, schema: int) -> None:
        if schema != self.schema:
            raise SchemaMismatch("the client's record spec is not this shard's; connect again to see the difference")


class Reader(NamedTuple):
    """Takes the parts of an opened frame."""

    frame: Memory

    def header(self, layout: struct.Struct) -> tuple[Any, ...]:
        try:
            return layout.unpack_from(self.frame, PREFIX.size)
        except struct.error:
            raise InvalidRecord(f"frame of {len(self.frame)} bytes is too short for its header") from None

    def view(self, layout: struct.Struct) -> View:
        """The view of the shard behind a reply's header."""
        try:
            return View(*VIEW.unpack_from(self.frame, PREFIX.size + layout.size))
        except struct.error:
            raise InvalidRecord(f"frame of {len(self.frame)} bytes is too short for its header") from None

    def arrays(self, start: int, *parts: tuple[Any, int]) -> list[NDArray[Any]]:
        """One view per (dtype, count), from `start` bytes after the prefix on; refuses a frame of more or less."""
        offsets, end = places(PREFIX.size + start, parts)
        if end != len(self.frame):
            raise InvalidRecord(f"frame has {len(self.frame)} bytes, its header says {end}")
        return [
            np.frombuffer(self.frame, dtype, count, offset)
            for (dtype, count), offset in zip(parts, offsets, strict=True)
        ]


def kind_of(frame: Memory) -> int:
    """The kind a frame says it is of; 0 for what is too short to say."""
    return int(PREFIX.unpack_from(frame)[2]) if len(frame) >= PREFIX.size else 0


def places(start: int, parts: Sequence[tuple[Any, int]]) -> tuple[list[int], int]:
    """Where arrays of (dtype, count) behind byte `start` of a frame begin, and where the last one ends."""
    offsets, end = [], start
    for dtype, count in parts:
        end = _aligned(end)
        offsets.append(end)
        end += np.dtype(dtype).itemsize * count
    return offsets, end


class Frame:
    """A frame about to be sent: a prefix, a header and arrays, not yet in one piece.

    Args:
        kind: one of KINDS.
        table: name of the table, "" for whatever table the shard holds.
        headers: the fixed header.
        arrays: each starts at a multiple of 16.
    """

    def __init__(self, kind: str, table: str, headers: bytes, *arrays: NDArray[Any]) -> None:
        parts: list[Any] = [b"", headers]
        end = PREFIX.size + len(headers)
        for array in arrays:
            parts.append(bytes(_aligned(end) - end))
            parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            end = _aligned(end) + array.nbytes
        parts[0] = prefix(kind, table, end)
        self._parts = parts
        self.length = end

    def to_bytes(self) -> bytes:
        return b"".join(self._parts)

    def write(self, memory: NDArray[np.uint8]) -> None:
        """Put the frame at the start of `memory`."""
        start = 0
        for part in self._parts:
            memory[start : start + len(part)] = np.frombuffer(part, np.uint8)
            start += len(part)


def prefix(kind: str, table: str, length: int) -> bytes:
    return PREFIX.pack(_MAGIC, VERSION, KINDS[kind], length, table_name(table))


def open_frame(frame: Memory, kind: str, table: str, *, anonymous: bool = False) -> Reader:
    """Check a frame's prefix.

    Args:
        frame: what came.
        kind: what it has to be.
        table: the table it has to be for.
        anonymous: an empty name, here or there, is good too.

    Raises:
        InvalidRecord: not such a frame. SchemaMismatch: another protocol version or table.
    """
    if len(frame) < PREFIX.size:
        raise InvalidRecord(f"frame of {len(frame)} bytes is too short for its header")
    magic, version, found, length, name = PREFIX.unpack_from(frame)
    if magic != _MAGIC:
        raise InvalidRecord("not a headrace frame")
    if version != VERSION:
        raise SchemaMismatch(f"peer speaks protocol version {version}, this side version {VERSION}")
    if found != KINDS[kind]:
        raise InvalidRecord(f"frame of kind {found}, expected {KINDS[kind]} ({kind})")
    if length != len(frame):
        raise InvalidRecord(f"frame has {len(frame)} bytes, its header says {length}")
    if name != table_name(table) and not (anonymous and (not table or not name.strip(b"\0"))):
        raise SchemaMismatch(f"frame for table {name.rstrip(bytes(1)).decode('ascii', 'replace')!r}, not {table!r}")
    return Reader(frame)


def _aligned(offset: int) -> int:
    return -(-offset // 16) * 16
