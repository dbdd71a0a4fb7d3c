"""Frames that say where in shared memory another frame lies (docs/wire.md)."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from replay_server.errors import InvalidRecord
from replay_server.frames import KINDS, PREFIX, Frame, Memory, kind_of, open_frame

WORTH_PLACING = 32 << 10
"""Bytes from which on a frame is placed in shared memory: below, the call itself costs more than its bytes."""

_PLACED = struct.Struct("<QQQQQ8x")  # session, request offset, request length, reply offset, reply capacity
_PLACED_REPLY = struct.Struct("<Q8x")  # length


class Placement(NamedTuple):
    """Where a request lies (length 0: behind this frame, in the message) and where its reply may go (capacity 0:
    nowhere)."""

    session: int
    request_offset: int
    request_length: int
    reply_offset: int
    reply_capacity: int


def is_placed(frame: bytes) -> bool:
    """Whether a request, or a reply, speaks of shared memory; says nothing about the rest of it."""
    return kind_of(frame) in (KINDS["Placed"], KINDS["PlacedReply"])


def encode_placed(placement: Placement, table: str, request: bytes = b"") -> bytes:
    """`request` is the frame itself when it does not lie in shared memory."""
    return Frame("Placed", table, _PLACED.pack(*placement), np.frombuffer(request, np.uint8)).to_bytes()


def decode_placed(frame: Memory, table: str) -> tuple[Placement, bytes]:
    """A placement, and the request behind it if there is one."""
    reader = open_frame(frame, "Placed", table)
    placement = Placement(*reader.header(_PLACED))
    request = bytes(frame[PREFIX.size + _PLACED.size :])
    if bool(request) == bool(placement.request_length):
        raise InvalidRecord("a request lies either in shared memory or behind the frame that says so")
    return placement, request


def encode_placed_reply(length: int, table: str) -> bytes:
    return Frame("PlacedReply", table, _PLACED_REPLY.pack(length)).to_bytes()


def decode_placed_reply(frame: Memory, table: str) -> int:
    """Bytes of the reply in shared memory."""
    reader = open_frame(frame, "PlacedReply", table)
    reader.arrays(_PLACED_REPLY.size)
    length: int = reader.header(_PLACED_REPLY)[0]
    return length
