"""What `headrace bench broadcast` found: as JSON, and as tables."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from distributed.bench.figure import Figure
from distributed.bench.json_report import JsonReport
from distributed.bench.machine import Machine
from distributed.bench.markdown import number, spread, table

MOST_MEDIAN = 2.0


class Sent(Struct, frozen=True):
    """Of one system, a sample a turn: milliseconds, latencies over all versions and actors of the turn."""

    p50_ms: Figure
    p99_ms: Figure
    publish_ms: Figure


class Point(Struct, frozen=True):
    """One size of weights and one number of actors.

    Attributes:
        bytes_: of the weights.
        ours: None where `missing` says why.
        delivered_mb_per_s: weights times actors over the latency p99 of the slowest: what arrives in a second.
        limit_ms: one put, get and copy of as many bytes.
        peer: RLlib's own, or why not.
        ratio: theirs over ours, of the p50 of each pair of turns.
    """

    bytes_: int
    actors: int
    limit_ms: float
    ours: Sent | None = None
    delivered_mb_per_s: float | None = None
    missing: str | None = None
    peer: Sent | None = None
    peer_bytes: int | None = None
    peer_missing: str | None = None
    ratio: Figure | None = None


class Staleness(Struct, frozen=True):
    """Versions behind the newest published, over all reports of a run's actors; one every 0.2 s from each."""

    config: str
    actors: int
    seconds: float
    versions_per_second: float
    env_steps_per_second: float
    updates_per_second: float
    median: float
    mean: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether the median is as low as it has to be with two actors on two cores."""
        return self.median <= MOST_MEDIAN


class BroadcastReport(JsonReport, frozen=True):
    """`began` is UTC, `load_after` the machine's mean number of runnable processes at the end."""

    origin: ClassVar[str] = "headrace bench broadcast"

    machine: Machine
    began: str
    took_s: float
    quick: bool
    turns: int
    points: tuple[Point, ...]
    stale: tuple[Staleness, ...]
    stale_missing: dict[str, str]
    peer: dict[str, str]
    load_after: float


def markdown(report: BroadcastReport) -> str:
    """The tables, and under them what they were measured on."""
    head = (
        "weights", "actors", "publish to acting: p50 (min - max) ms", "p99 ms", "of the learner ms", "arriving MB/s",
        "limit ms", "RLlib: p50, p99, of its learner ms", "RLlib's p50 over ours",
    )  # fmt: skip
    points = table(head, [_cells(point) for point in report.points])
    runs = ("run", "actors", "versions/s", "env steps/s", "updates/s", "versions behind: median, mean, most", "holds")
    stale = [_stale(found) for found in report.stale]
    stale += [(name, "", "", "", "", f"not measured: {why}", "-") for name, why in report.stale_missing.items()]
    return "\n".join([points, table(runs, stale), _facts(report)])


def _cells(point: Point) -> tuple[str, ...]:
    size, limit = f"{point.bytes_ / 1e6:g} MB", number(point.limit_ms)
    if point.ours is None:
        return size, str(point.actors), f"not measured: {point.missing}", "-", "-", "-", limit, "-", "-"
    assert point.delivered_mb_per_s is not None
    peer = point.peer_missing or "-"
    if point.peer is not None:
        peer = ", ".join(number(f.median) for f in (point.peer.p50_ms, point.peer.p99_ms, point.peer.publish_ms))
    return (
        size,
        str(point.actors),
        spread(point.ours.p50_ms),
        number(point.ours.p99_ms.median),
        number(point.ours.publish_ms.median),
        number(point.delivered_mb_per_s),
        limit,
        peer,
        "-" if point.ratio is None else f"{spread(point.ratio)} x",
    )


def _stale(found: Staleness) -> tuple[str, ...]:
    rates = (found.versions_per_second, found.env_steps_per_second, found.updates_per_second)
    behind = f"{found.median:g}, {found.mean:.2f}, {found.most:g}"
    holds = f"{'yes' if found.holds else '**no**'} (median <= {MOST_MEDIAN:g})"
    return f"`{found.config}`", str(found.actors), *map(number, rates), behind, holds


def _facts(report: BroadcastReport) -> str:
    small = " with --quick: too small and too short to judge by" if report.quick else ""
    peer = "".join(f" {name} {version}." for name, version in report.peer.items())
    return (
        f"Measured {report.began} UTC in {report.took_s:.0f} s{small} on {report.machine.text}, at the end "
        f"{report.load_after:.1f}. {report.turns} turns of each.{peer}\n"
    )
