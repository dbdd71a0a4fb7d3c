"""Counters for Prometheus, turned into metrics when they are scraped and at no other time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from replay_server.call_meter import LATENCY_BOUNDS
from replay_server.errors import ConfigError
from replay_server.replay import Calls, ShardStats

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Collector(Protocol):
    """What prometheus-client asks at a scrape, from another thread."""

    def collect(self) -> Iterator[Metric]: ...


class MetricsEndpoint:
    """Serves `http://HOST:PORT/metrics` from a thread, for whoever reaches it, with the process's own figures.

    Needs the package prometheus-client.

    Args:
        collector: what is shown, asked at every scrape.
        port: 0 takes a free one; see `address`.
        host: address to listen at.
        setting: that asked for it, for messages.

    Raises:
        ConfigError: the package is missing, or the port is taken.
    """

    def __init__(self, collector: Collector, port: int, host: str, setting: str) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
        except ModuleNotFoundError:
            raise ConfigError(
                f"{setting}: needs the package prometheus-client; pip install 'headrace[metrics]'"
            ) from None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        ProcessCollector(registry=registry)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"{setting}: cannot listen on {host}:{port}: {error.strerror}; choose another port, or 0 for any"
            ) from None
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class ShardCollector:
    """Of a shard."""

    def __init__(self, stats: Callable[[], ShardStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        yield from _totals(stats)
        yield from _disk(stats)
        yield from _by_name(stats)
        yield from _calls(stats)


def _totals(stats: ShardStats) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    shard = [str(stats.shard)]
    yield InfoMetricFamily(
        "headrace_shard", "What the shard is.", {"shard": shard[0], "address": stats.address, "level": stats.level}
    )
    gauges: tuple[tuple[str, str, float], ...] = (
        ("records", "Records in the table.", stats.size),
        ("capacity_records", "Records the table holds at most.", stats.capacity),
        ("priority_mass", "Sum of p^alpha.", stats.priority_mass),
        ("uptime_seconds", "Seconds since the server started.", stats.uptime_s),
        ("shared_memory_sessions", "Clients that share memory with the shard.", stats.sessions),
    )
    for name, text, value in gauges:
        yield _one(GaugeMetricFamily, name, text, shard, value)
    counters: tuple[tuple[str, str, float], ...] = (
        ("inserted_records", "Records ever inserted, over restarts.", stats.inserted),
        ("sampled_credits", "Sample credits ever spent, over restarts.", stats.sampled),
        ("drawn_records", "Records handed out since the start.", stats.drawn),
        ("duplicate_records", "Records sent again that were stored already, since the start.", stats.duplicates),
        ("fenced_records", "Records refused from replaced writers.", stats.fenced),
    )
    for name, text, value in counters:
        yield _one(CounterMetricFamily, name, text, shard, value)


def _disk(stats: ShardStats) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    shard, snapshots, journal = [str(stats.shard)], stats.snapshots, stats.journal
    yield _one(CounterMetricFamily, "snapshots", "Snapshots taken.", shard, snapshots.taken)
    yield _one(CounterMetricFamily, "snapshot_seconds", "Seconds spent on snapshots.", shard, snapshots.seconds)
    text = "Longest time calls waited for the cut of a snapshot."
    yield _one(GaugeMetricFamily, "snapshot_longest_pause_seconds", text, shard, snapshots.longest_pause_s)
    if journal is None:
        return
    yield _one(GaugeMetricFamily, "journal_bytes", "Bytes of the journal that are needed.", shard, journal.bytes)
    yield _one(GaugeMetricFamily, "journal_garbage_ratio", "Share of dead records in them.", shard, journal.garbage)
    text = "Removals that wait for room on the disk."
    yield _one(GaugeMetricFamily, "journal_pending_removals", text, shard, journal.pending_removals)
    yield _one(CounterMetricFamily, "journal_syncs", "Times the journal was written back.", shard, journal.syncs)
    yield _one(CounterMetricFamily, "journal_sync_seconds", "Seconds that took.", shard, journal.sync_seconds)


def _by_name(stats: ShardStats) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    shard = str(stats.shard)
    tables: tuple[tuple[str, str, str, dict[str, float]], ...] = (
        ("priority_updates", "Priority updates.", "result", {"applied": stats.updated, "stale": stats.stale}),
        ("waits", "Calls that had to wait.", "reason", {name: w.calls for name, w in stats.waits.items()}),
        ("wait_seconds", "Seconds calls waited.", "reason", {name: w.seconds for name, w in stats.waits.items()}),
        ("refusals", "Calls answered with an error.", "error", dict(stats.refusals)),
    )
    for name, text, label, values in tables:
        family = CounterMetricFamily(f"headrace_replay_{name}", text, labels=["shard", label])
        for key, value in values.items():
            family.add_metric([shard, key], value)
        yield family
    blocked = GaugeMetricFamily(
        "headrace_replay_blocked", "1 for what the call that waits longest waits for.", labels=["shard", "reason"]
    )
    if stats.blocked_on is not None:
        blocked.add_metric([shard, stats.blocked_on], 1)
    yield blocked


def _calls(stats: ShardStats) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    shard = str(stats.shard)
    seconds = HistogramMetricFamily(
        "headrace_replay_call_seconds", "Time the server took to answer.", labels=["shard", "method"]
    )
    moved = CounterMetricFamily(
        "headrace_replay_call_bytes", "Bytes of frames that gRPC carried.", labels=["shard", "method", "direction"]
    )
    for method, calls in stats.calls.items():
        seconds.add_metric([shard, method], _cumulative(calls), calls.seconds)
        moved.add_metric([shard, method, "in"], calls.bytes_in)
        moved.add_metric([shard, method, "out"], calls.bytes_out)
    yield seconds
    yield moved


def _cumulative(calls: Calls) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for bound, count in zip((*map(str, LATENCY_BOUNDS), "+Inf"), calls.latency, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _one(kind: Any, name: str, text: str, shard: list[str], value: float) -> Metric:
    family: Metric = kind(f"headrace_replay_{name}", text, labels=["shard"])
    family.add_metric(shard, value)  # type: ignore[attr-defined]
    return family
