"""Which segments of a journal somebody still needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from replay_server.occupancy import Occupancy


@dataclass
class Segment:
    """One file of a journal.

    Attributes:
        last: lsn of its last entry.
        rows: records written into it.
        damaged: salvage left something out of it.
        dead_at: the position at which nothing in it was needed any more, when that has been noticed.
    """

    number: int
    path: str
    size: int
    last: int
    rows: int = 0
    damaged: bool = False
    dead_at: int | None = None


@dataclass
class Retention:
    """The segments there are, and why they are kept.

    Attributes:
        occupancy: where the live records lie.
        segments: oldest first.
        base: position of the snapshot the journal builds on, 0 for none.
        pinned: position of the snapshot under way, if one is.
        last_removal: lsn of the last entry that took records away without new ones in their slots.
    """

    occupancy: Occupancy
    segments: list[Segment] = field(default_factory=list)
    base: int = 0
    pinned: int | None = None
    last_removal: int = 0

    @property
    def last(self) -> int:
        """lsn of the last entry in a segment, 0 without one."""
        return self.segments[-1].last if self.segments else 0

    @property
    def bytes(self) -> int:
        """Of the segments that the snapshot does not make needless."""
        return sum(segment.size for segment in self._beyond_base())

    @property
    def garbage_ratio(self) -> float:
        """The share of `bytes` that tells of records nobody can draw any more; 0 when there are none."""
        beyond = self._beyond_base()
        total = sum(segment.size for segment in beyond)
        live = sum(s.size * self.occupancy.live_in(s.number) / s.rows for s in beyond if s.rows)
        return 1.0 - live / total if total else 0.0

    def needless(self, position: int, durable: int, *, writing: bool) -> Segment | None:
        """The oldest segment, when nobody needs it.

        Args:
            position: lsn of the last entry.
            durable: entries up to this lsn are safe. Records may only go once what overwrote them is.
            writing: the newest segment still grows. When it does not it is kept all the same, for its number, unless
                it is damaged.
        """
        if not self.segments:
            return None
        oldest = self.segments[0]
        if len(self.segments) == 1 and (writing or not oldest.damaged):
            return None
        if self.occupancy.live_in(oldest.number) or self.occupancy.pending:
            oldest.dead_at = None  # a queue that ran empty fills again
        elif oldest.dead_at is None:
            oldest.dead_at = position
        if oldest.last <= self.base:
            return oldest
        if self.pinned is not None and oldest.last > self.pinned:
            return None  # the snapshot under way may hold records whose removal only this segment tells of
        if 0 < self.base < self.last_removal:
            return None  # so may the last one
        return oldest if oldest.dead_at is not None and durable >= oldest.dead_at else None

    def drop_oldest(self) -> None:
        """It is deleted."""
        self.occupancy.forget(self.segments.pop(0).number)

    def _beyond_base(self) -> list[Segment]:
        return [segment for segment in self.segments.copy() if segment.last > self.base]
