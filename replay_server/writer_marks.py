"""What a shard remembers of its writers, to store every chunk once and to refuse replaced writers."""

from __future__ import annotations

from dataclasses import dataclass, field

from replay_server.errors import InvalidRecord, StaleEpoch
from replay_server.messages import Stamp

_AHEAD = 4096
"""Sequence numbers remembered above a hole. A hole this far back was given up by its writer, whose window is far
smaller; it is then counted as seen, so the memory stays bounded."""


@dataclass
class WriterMark:
    """One writer: every sequence number below `low` and those in `above` were stored."""

    epoch: int
    low: int = 0
    above: set[int] = field(default_factory=set)

    def seen(self, sequence: int) -> bool:
        return sequence < self.low or sequence in self.above

    def add(self, sequence: int) -> None:
        self.above.add(sequence)
        if len(self.above) > _AHEAD:
            self.low = min(self.above)
        while self.low in self.above:
            self.above.remove(self.low)
            self.low += 1


class WriterMarks:
    """The marks of all writers of one shard."""

    def __init__(self) -> None:
        self.by_writer: dict[int, WriterMark] = {}

    def admit(self, stamp: Stamp) -> bool:
        """False for a chunk already stored; a newer epoch replaces the older one from this call on.

        Raises:
            StaleEpoch: a newer epoch of this writer exists.
            InvalidRecord: a sequence number no honest writer can have reached.
        """
        mark = self.by_writer.get(stamp.writer_id)
        if mark is None or stamp.epoch > mark.epoch:
            mark = self.by_writer[stamp.writer_id] = WriterMark(stamp.epoch)
        if stamp.epoch < mark.epoch:
            raise StaleEpoch(f"writer {stamp.writer_id} epoch {stamp.epoch} was replaced by epoch {mark.epoch}")
        if stamp.sequence >= 2**63:
            raise InvalidRecord(f"sequence number {stamp.sequence} is out of range")
        return not mark.seen(stamp.sequence)

    def add(self, stamp: Stamp) -> None:
        """Remember a stored chunk, admitted before."""
        self.by_writer[stamp.writer_id].add(stamp.sequence)

    def to_json(self) -> list[list[object]]:
        """[[writer_id, epoch, low, [above, ...]], ...], sorted."""
        return [[i, m.epoch, m.low, sorted(m.above)] for i, m in sorted(self.by_writer.items())]

    @staticmethod
    def from_json(rows: list[list[object]]) -> WriterMarks:
        """Inverse of `to_json`; raises ValueError or TypeError on anything else."""
        marks = WriterMarks()
        for writer_id, epoch, low, above in rows:
            if not (isinstance(writer_id, int) and isinstance(epoch, int) and isinstance(low, int)):
                raise TypeError("writer marks are not integers")
            if not (isinstance(above, list) and all(isinstance(s, int) for s in above)):
                raise TypeError("writer marks are not lists of integers")
            marks.by_writer[writer_id] = WriterMark(epoch, low, set(above))
        return marks
