"""What a shard remembers of its writers, to store every chunk once and to refuse replaced writers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from replay_server.errors import InvalidRecord, StaleEpoch, WriterEvicted
from replay_server.messages import Stamp

MOST_IN_FLIGHT = 1024
"""Chunks a writer may have without an answer; a quarter of what a shard can tell apart."""

_AHEAD = 4 * MOST_IN_FLIGHT
"""Sequence numbers remembered above a hole. A hole this far back was given up by its writer, whose window is far
smaller; it is then counted as stored, so the memory stays bounded."""

_MOST_WRITERS = 16_384


class Standing(Enum):
    """What a chunk is to a shard."""

    FRESH = auto()  # of a writer the shard knows: to be stored
    STORED = auto()  # stored already
    OPENING = auto()  # the first of a new writer or a new epoch, which has to be opened


@dataclass(slots=True)
class WriterMark:
    """One writer: every sequence number below `low` was stored, and `low` + i for each bit i of `above`."""

    epoch: int
    low: int = 0
    above: int = 0

    def seen(self, sequence: int) -> bool:
        return sequence < self.low or bool(self.above >> (sequence - self.low) & 1)

    def add(self, sequence: int) -> None:
        if sequence < self.low:
            return
        if sequence - self.low >= _AHEAD:
            self._raise(sequence - _AHEAD + 1)
        self.above |= 1 << (sequence - self.low)
        ones = (~self.above & (self.above + 1)).bit_length() - 1  # stored without a hole from `low` on
        self._raise(self.low + ones)

    def _raise(self, low: int) -> None:
        self.above >>= low - self.low
        self.low = low


class WriterMarks:
    """The marks of a shard's writers, those heard of last; about 1 KiB each at most.

    Args:
        limit: writers remembered; beyond it the one silent for longest is forgotten and then refused.
    """

    def __init__(self, limit: int = _MOST_WRITERS) -> None:
        self._limit = limit
        self._by_writer: dict[int, WriterMark] = {}  # the one heard of last is at the end

    def __len__(self) -> int:
        return len(self._by_writer)

    def standing(self, stamp: Stamp) -> Standing:
        """What to do with a chunk; changes nothing but who was heard of last.

        Raises:
            StaleEpoch: a newer epoch of this writer exists.
            WriterEvicted: the writer is unknown and does not say that it is new: what it sent before is forgotten.
            InvalidRecord: a sequence number no honest writer can have reached.
        """
        if stamp.sequence >= 2**63:
            raise InvalidRecord(f"sequence number {stamp.sequence} is out of range")
        mark = self._by_writer.pop(stamp.writer_id, None)
        if mark is not None:
            self._by_writer[stamp.writer_id] = mark
            if stamp.epoch < mark.epoch:
                raise StaleEpoch(f"writer {stamp.writer_id} epoch {stamp.epoch} was replaced by epoch {mark.epoch}")
            if stamp.epoch == mark.epoch:
                return Standing.STORED if mark.seen(stamp.sequence) else Standing.FRESH
        if not stamp.opens:
            raise WriterEvicted(
                f"writer {stamp.writer_id} epoch {stamp.epoch} is not remembered here (the shard lost it in a restart, "
                f"or more than {self._limit:,} others wrote since): open a new writer"
            )
        return Standing.OPENING

    def open(self, writer_id: int, epoch: int) -> None:
        """A writer, or a newer epoch of one, begins; older epochs of it are refused from now on."""
        self._by_writer.pop(writer_id, None)
        self._by_writer[writer_id] = WriterMark(epoch)
        if len(self._by_writer) > self._limit:
            del self._by_writer[next(iter(self._by_writer))]

    def add(self, stamp: Stamp) -> None:
        """Remember a stored chunk of an opened writer."""
        self._by_writer[stamp.writer_id].add(stamp.sequence)

    def replay(self, stamp: Stamp) -> None:
        """A journal says that this chunk was stored: so its writer and epoch were open."""
        mark = self._by_writer.pop(stamp.writer_id, None)
        if mark is None or mark.epoch < stamp.epoch:
            self.open(stamp.writer_id, stamp.epoch)
        else:
            self._by_writer[stamp.writer_id] = mark
        if mark is None or mark.epoch <= stamp.epoch:
            self.add(stamp)

    def to_json(self) -> list[list[int | str]]:
        """[[writer_id, epoch, low, above as hexadecimal text], ...], the one heard of last at the end."""
        return [[i, m.epoch, m.low, f"{m.above:x}"] for i, m in self._by_writer.items()]

    def load(self, rows: list[list[int | str]]) -> None:
        """Become what `to_json` told; raises ValueError or TypeError on anything else, changing nothing."""
        marks = {}
        for writer_id, epoch, low, above in rows:
            if not (isinstance(writer_id, int) and isinstance(epoch, int) and isinstance(low, int)):
                raise TypeError("writer marks are not integers")
            if not isinstance(above, str):
                raise TypeError("writer marks are not hexadecimal texts")
            marks[writer_id] = WriterMark(epoch, low, int(above, 16))
        self._by_writer = marks
