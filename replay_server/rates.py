"""What a shard does per second, from two looks at its counters."""

from __future__ import annotations

from dataclasses import dataclass

from replay_server.call_meter import LATENCY_BOUNDS
from replay_server.replay import Calls, ShardStats, Waits


@dataclass(frozen=True)
class Rates:
    """What a shard did between two looks, per second.

    Records, updates and bytes per second; `waiting` is the number of calls that were waiting at a time, by reason, on
    average; `calls` per second by method; `median_s` and `p99_s` by method: times within which half and 99 of 100 calls
    were answered, rounded up to the next of LATENCY_BOUNDS, None above the last.
    """

    inserted: float
    duplicates: float
    drawn: float
    updated: float
    stale: float
    bytes_in: float
    bytes_out: float
    waiting: dict[str, float]
    calls: dict[str, float]
    median_s: dict[str, float | None]
    p99_s: dict[str, float | None]


_NO_CALLS = Calls(0, 0.0, 0, 0, (0,) * (len(LATENCY_BOUNDS) + 1))
_NO_WAITS = Waits(0, 0.0)


def rates(before: ShardStats, after: ShardStats) -> Rates:
    """Differences between two looks at a shard, by the time that passed there; since its start if that was between."""
    if after.uptime_s <= before.uptime_s:
        before = ShardStats(after.address, 0, 0, after.inserted, after.sampled, 0.0, 0, None)
    seconds = max(after.uptime_s - before.uptime_s, 1e-9)
    calls = {
        name: [now - then for now, then in zip(stats.latency, before.calls.get(name, _NO_CALLS).latency, strict=True)]
        for name, stats in after.calls.items()
    }

    def per_second(name: str) -> float:
        return float(getattr(after, name) - getattr(before, name)) / seconds

    def moved(name: str) -> float:
        return (
            float(
                sum(getattr(c, name) for c in after.calls.values())
                - sum(getattr(c, name) for c in before.calls.values())
            )
            / seconds
        )

    return Rates(
        inserted=per_second("inserted"),
        duplicates=per_second("duplicates"),
        drawn=per_second("drawn"),
        updated=per_second("updated"),
        stale=per_second("stale"),
        bytes_in=moved("bytes_in"),
        bytes_out=moved("bytes_out"),
        waiting={
            reason: (waits.seconds - before.waits.get(reason, _NO_WAITS).seconds) / seconds
            for reason, waits in after.waits.items()
        },
        calls={name: sum(latency) / seconds for name, latency in calls.items()},
        median_s={name: _quantile(latency, 0.5) for name, latency in calls.items() if sum(latency)},
        p99_s={name: _quantile(latency, 0.99) for name, latency in calls.items() if sum(latency)},
    )


def _quantile(latency: list[int], share: float) -> float | None:
    wanted, seen = share * sum(latency), 0
    for bound, count in zip(LATENCY_BOUNDS, latency, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return None
