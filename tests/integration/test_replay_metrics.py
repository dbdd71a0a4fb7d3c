"""What Prometheus gets from a shard, against counts made by hand."""

import sys
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from distributed.status_screen import lines
from replay_server import (
    ConfigError,
    Field,
    InvalidRecord,
    RateLimiter,
    RecordSpec,
    ReplayTimeout,
    connect,
    start_server,
)

pytestmark = pytest.mark.integration
SPEC = RecordSpec((Field("x", "float32"),))


def scrape(server):
    """{(metric, labels without shard): value}; fails on a metric given twice."""
    with urllib.request.urlopen(f"http://{server.metrics.address}/metrics", timeout=5.0) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name.startswith("headrace_") else ():
            labels = {name: value for name, value in sorted(sample.labels.items()) if name != "shard"}
            assert sample.labels["shard"] == "7"
            key = (sample.name.removeprefix("headrace_replay_"), *labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def test_a_scrape_shows_what_happened():
    with (
        start_server(SPEC, 100, rate_limiter=RateLimiter(4), shard_index=7, metrics_port=0) as server,
        connect([server.address], prefetch=0) as replay,
    ):
        assert scrape(server)[("records",)] == 0
        with pytest.raises(ReplayTimeout):
            replay.sample(4, timeout_s=0.05)
        replay.insert({"x": np.arange(10, dtype=np.float32)})
        batch = replay.sample(6)
        replay.update_priorities(batch.keys, np.ones(6))
        replay.flush()
        replay.clear()
        replay.update_priorities(batch.keys[:2], np.ones(2))
        replay.flush()
        with pytest.raises(InvalidRecord):
            replay.insert({"x": np.array([np.nan], np.float32)})
        found = scrape(server)
        assert found[("capacity_records",)] == 100
        assert (found[("records",)], found[("inserted_records_total",)]) == (0, 10)
        assert (found[("drawn_records_total",)], found[("sampled_credits_total",)]) == (6, 6)
        assert found[("priority_updates_total", "stale")] == 2
        assert 1 <= found[("priority_updates_total", "applied")] <= 6  # of equal keys the last wins
        stats = server._service.stats()
        for method, calls in stats.calls.items():
            assert found[("call_seconds_count", method)] == calls.count
            assert found[("call_seconds_sum", method)] == pytest.approx(calls.seconds)
            assert found[("call_bytes_total", "in", method)] == calls.bytes_in
            buckets = [v for key, v in found.items() if key[0] == "call_seconds_bucket" and method in key]
            assert buckets == sorted(buckets) and buckets[-1] == calls.count
        assert found[("call_seconds_count", "Insert")] == 1
        for reason, waits in stats.waits.items():
            assert found[("waits_total", reason)] == waits.calls
            assert found[("wait_seconds_total", reason)] == pytest.approx(waits.seconds)
        assert found[("uptime_seconds",)] > 0
        with urllib.request.urlopen(f"http://{server.metrics.address}/metrics", timeout=5.0) as answer:
            assert "process_resident_memory_bytes" in answer.read().decode()


def test_a_scrape_shows_the_journal_and_snapshots(tmp_path):
    settings = {"durability": "fsync", "directory": str(tmp_path), "metrics_port": 0, "shard_index": 7}
    with start_server(SPEC, 100, **settings) as server, connect([server.address], prefetch=0) as replay:
        before = scrape(server)
        assert (before[("journal_bytes",)], before[("snapshots_total",)]) == (0, 0)
        for _ in range(3):
            replay.insert({"x": np.arange(10, dtype=np.float32)})
        replay.save(".")
        found = scrape(server)
        assert found[("journal_bytes",)] == sum(path.stat().st_size for path in (tmp_path / "journal").glob("*.log"))
        assert found[("journal_syncs_total",)] >= 3 and found[("journal_sync_seconds_total",)] > 0
        assert 0 <= found[("journal_garbage_ratio",)] < 1 and found[("journal_pending_removals",)] == 0
        assert found[("snapshots_total",)] == 1
        assert 0 < found[("snapshot_longest_pause_seconds",)] <= found[("snapshot_seconds_total",)]
        [screen] = [line for line in lines("here:1", *[replay.stats().shards[0]] * 2) if "written back" in line]
        assert screen.startswith("  journal")
        assert sum(key[0] == "journal_bytes" for key in found) == 1


def test_metrics_are_off_by_default_and_gone_with_the_server():
    with start_server(SPEC, 100) as server:
        assert server.metrics is None
    with start_server(SPEC, 100, metrics_port=0) as server:
        address = server.metrics.address
        with pytest.raises(ConfigError, match=f"metrics_port: cannot listen on {address}: .*choose another"):
            start_server(SPEC, 100, metrics_port=int(address.rpartition(":")[2]))
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=5.0)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"metrics_port: needs .* pip install 'headrace\[metrics\]'"):
        start_server(SPEC, 100, metrics_port=0)
