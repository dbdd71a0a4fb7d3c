"""What writers asked and were told, and whether what is stored agrees with it (after Jepsen's set test).

A writer notes `invoke` before it hands records over and exactly one outcome afterwards: `ok` (acknowledged), `refused`
(certainly not stored) or `unknown`. A writer that was killed leaves calls without an outcome: unknown as well.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_NOTHING = np.zeros(0, np.int64)
OUTCOMES = ("ok", "refused", "unknown")


@dataclass(frozen=True)
class Call:
    """Records `first` .. `first + count - 1`, handed over at `start` and answered at `end` (infinity: never)."""

    first: int
    count: int
    start: float
    end: float = float("inf")
    outcome: str = "unknown"


class History(Protocol):
    """Where a writer notes its calls."""

    def invoke(self, first: int, count: int) -> None:
        """Records `first` .. `first + count - 1` are about to be handed over."""

    def outcome(self, op: str, firsts: Sequence[int], note: str = "") -> None:
        """The calls that started with these records ended; `op` is one of `OUTCOMES`, `note` is for people."""


class HistoryFile:
    """Appends one line an event with write(): what was noted survives the process being killed."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def invoke(self, first: int, count: int) -> None:
        self._write({"op": "invoke", "first": first, "count": count})

    def outcome(self, op: str, firsts: Sequence[int], note: str = "") -> None:
        self._write({"op": op, "firsts": list(firsts), **({"note": note} if note else {})})

    def note(self, text: str) -> None:
        """For people; the checker passes over it."""
        self._write({"op": "note", "note": text})

    def _write(self, event: dict[str, object]) -> None:
        line = json.dumps({"t": time.monotonic(), **event}).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError("the history file takes nothing more")


class HistoryInMemory:
    """Of one shard, by a clock of the test's choice."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.by_first: dict[int, Call] = {}

    @property
    def calls(self) -> list[Call]:
        return list(self.by_first.values())

    def invoke(self, first: int, count: int) -> None:
        assert first not in self.by_first
        self.by_first[first] = Call(first, count, self._now())

    def outcome(self, op: str, firsts: Sequence[int], note: str = "") -> None:
        for first in firsts:
            self.by_first[first] = _ended(self.by_first[first], op, self._now())


def _ended(call: Call, op: str, now: float) -> Call:
    assert call.outcome == "unknown" and call.end == float("inf"), f"call {call.first} has two outcomes"
    return Call(call.first, call.count, call.start, now if op != "unknown" else float("inf"), op)


def read_history(path: Path) -> list[Call]:
    """All calls of one file; a last line that was cut off by a kill is left out."""
    calls: dict[int, Call] = {}
    if not path.exists():
        return []
    for line in path.read_bytes().split(b"\n")[:-1]:
        event = json.loads(line)
        if event["op"] == "invoke":
            assert event["first"] not in calls, f"record {event['first']} was invoked twice: the test is wrong"
            calls[event["first"]] = Call(event["first"], event["count"], event["t"])
        elif event["op"] in OUTCOMES:
            for first in event["firsts"]:
                calls[first] = _ended(calls[first], event["op"], event["t"])
    return list(calls.values())


@dataclass(frozen=True)
class Verdict:
    """What the checker found; ids int64[...] each.

    `lost`: acknowledged and not there. `repeated`: there more than once. `unasked`: nobody handed it over.
    `undead`: refused, and there. `acknowledged` and `uncertain` count records, `surfaced` the uncertain ones there.
    """

    lost: NDArray[np.int64]
    repeated: NDArray[np.int64]
    unasked: NDArray[np.int64]
    undead: NDArray[np.int64]
    acknowledged: int
    uncertain: int
    surfaced: int

    @property
    def valid(self) -> bool:
        return not any(len(ids) for ids in (self.lost, self.repeated, self.unasked, self.undead))

    def __str__(self) -> str:
        found = [
            f"{name}: {len(ids)} records, first {ids[:5].tolist()}"
            for name in ("lost", "repeated", "unasked", "undead")
            if len(ids := getattr(self, name))
        ]
        counts = f"{self.acknowledged} acknowledged, {self.surfaced} of {self.uncertain} uncertain records there"
        return "; ".join([*found, counts])


def check_history(
    calls: Iterable[Call],
    stored: NDArray[np.int64],
    capacity: int | None = None,
    removed: NDArray[np.int64] = _NOTHING,
) -> Verdict:
    """Every acknowledged record is stored once, every uncertain one at most once, and nothing else is.

    Args:
        calls: of all writers; no record belongs to two.
        stored: int64[N], ids of everything that is stored at the end.
        capacity: of the one shard all of it went to, when more was inserted than it holds and the oldest is
            overwritten first: a record may then be missing once `capacity` others may have been stored after it.
        removed: int64[M], ids of records that have left for a good reason, and may be missing.
    """
    calls = list(calls)
    ids = {kind: _ids(c for c in calls if c.outcome == kind) for kind in OUTCOMES}
    unique, counts = np.unique(stored, return_counts=True)
    due = calls if capacity is None else _not_overwritten(calls, capacity)
    expected = _ids(c for c in due if c.outcome == "ok")
    return Verdict(
        lost=np.setdiff1d(np.setdiff1d(expected, unique), removed),
        repeated=unique[counts > 1],
        unasked=np.setdiff1d(unique, np.concatenate(list(ids.values()))),
        undead=np.intersect1d(ids["refused"], unique),
        acknowledged=len(ids["ok"]),
        uncertain=len(ids["unknown"]),
        surfaced=len(np.intersect1d(ids["unknown"], unique)),
    )


def _not_overwritten(calls: list[Call], capacity: int) -> list[Call]:
    """Calls of which no record can have been overwritten: fewer than `capacity` records can have come after."""
    perhaps_stored = [c for c in calls if c.outcome != "refused"]
    ends = np.array([c.end for c in perhaps_stored])
    counts = np.array([c.count for c in perhaps_stored])
    return [c for c in calls if counts[ends >= c.start].sum() <= capacity]


def _ids(calls: Iterable[Call]) -> NDArray[np.int64]:
    parts = [np.arange(c.first, c.first + c.count) for c in calls]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
