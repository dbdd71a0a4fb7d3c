"""What `headrace bench broadcast` found: as JSON, and as tables."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from distributed.bench.figure import Figure
from distributed.bench.machine import Machine
from distributed.bench.staleness import MOST_MEDIAN, Staleness
from replay_server.errors import ConfigError


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


class BroadcastReport(Struct, frozen=True):
    """Everything a run measured; `began` is UTC, `load_after` the machine's mean number of runnable processes then."""

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

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @staticmethod
    def read(path: Path) -> BroadcastReport:
        """Raises ConfigError when the file is not a report."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=BroadcastReport)
        except OSError as error:
            raise ConfigError(f"{path}: cannot read it: {error.strerror}; check the path") from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path}: not a report of headrace bench broadcast: {error}") from None


def markdown(report: BroadcastReport) -> str:
    """The tables, and under them what they were measured on."""
    head = (
        "weights", "actors", "publish to acting: p50 (min - max) ms", "p99 ms", "of the learner ms", "arriving MB/s",
        "limit ms", "RLlib: p50, p99, of its learner ms", "RLlib's p50 over ours",
    )  # fmt: skip
    rows = [head, ("---",) * len(head), *(_cells(point) for point in report.points)]
    stale = [
        ("run", "actors", "versions/s", "env steps/s", "updates/s", "versions behind: median, mean, most", "holds"),
        ("---",) * 7,
        *(_stale(found) for found in report.stale),
        *((name, "", "", "", "", f"not measured: {why}", "-") for name, why in report.stale_missing.items()),
    ]
    return "\n".join([_table(rows), _table(stale), _facts(report)])


def _table(rows: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(point: Point) -> tuple[str, ...]:
    size, limit = f"{_number(point.bytes_ / 1e6)} MB", _number(point.limit_ms)
    if point.ours is None:
        return size, str(point.actors), f"not measured: {point.missing}", "-", "-", "-", limit, "-", "-"
    assert point.delivered_mb_per_s is not None
    peer = point.peer_missing or "-"
    if point.peer is not None:
        peer = ", ".join(_number(f.median) for f in (point.peer.p50_ms, point.peer.p99_ms, point.peer.publish_ms))
    return (
        size,
        str(point.actors),
        _figure(point.ours.p50_ms),
        _number(point.ours.p99_ms.median),
        _number(point.ours.publish_ms.median),
        _number(point.delivered_mb_per_s),
        limit,
        peer,
        "-" if point.ratio is None else f"{_figure(point.ratio)} x",
    )


def _stale(found: Staleness) -> tuple[str, ...]:
    rates = (found.versions_per_second, found.env_steps_per_second, found.updates_per_second)
    behind = f"{_number(found.median)}, {found.mean:.2f}, {_number(found.most)}"
    holds = f"{'yes' if found.holds else '**no**'} (median <= {MOST_MEDIAN:g})"
    return f"`{found.config}`", str(found.actors), *map(_number, rates), behind, holds


def _facts(report: BroadcastReport) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    small = " with --quick: too small and too short to judge by" if report.quick else ""
    peer = "".join(f" {name} {version}." for name, version in report.peer.items())
    return (
        f"Measured {report.began} UTC in {report.took_s:.0f} s{small} on {machine.cores} cores ({machine.cpu}), "
        f"{machine.memory_bytes / 2**30:.0f} GiB, {machine.system}, Python {machine.python}, {versions}; load at the "
        f"start {machine.load:.1f}, at the end {report.load_after:.1f}. {report.turns} turns of each.{peer}\n"
    )


def _figure(figure: Figure) -> str:
    text = _number(figure.median)
    return f"{text} ({_number(figure.low)} - {_number(figure.high)})" if len(figure.samples) > 1 else text


def _number(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
