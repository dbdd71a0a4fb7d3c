"""Connections cut at any byte, and silence in one or both directions, by a proxy of our own."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fault.history import check_history, read_history
from fault.proxy import TO_CLIENT, TO_SHARD, Proxy
from fault.records import SPEC, check_bodies, rows, stored_ids
from replay_server import HeadraceError, connect
from replay_server.messages import SampleRequest, Updates
from replay_server.remote import RemoteShard

pytestmark = pytest.mark.integration

_LARGE = 20 << 20


def test_connections_cut_at_random_bytes(start_shard, start_writer, soak, figures):
    """Requests and replies torn anywhere: chunks are sent again, and stored once."""
    shard = start_shard(capacity=2_000_000)
    cuts = soak.count(15, 250)
    rng = np.random.default_rng(11)
    figures.seeds(11)
    with Proxy(shard.address) as proxy, connect([shard.address], spec=SPEC) as replay:
        writer = start_writer([proxy.address], 1, seed=11, append_s=20.0, flush_s=20.0)
        writer.wait_for_lines(3)
        while proxy.cuts < cuts:
            before, deadline = proxy.cuts, time.monotonic() + 20
            if rng.random() < 0.5:
                proxy.cut_after(TO_SHARD, int(rng.exponential(30_000)) + 1)
            else:
                proxy.cut_after(TO_CLIENT, int(rng.exponential(1_000)) + 1)
            while proxy.cuts == before:
                assert time.monotonic() < deadline, "the writer does not get on"
                time.sleep(0.002)
        writer.finish()
        verdict = check_history(read_history(writer.history), stored_ids(replay, shard.directory))
    figures.add(cuts=proxy.cuts, acknowledged=verdict.acknowledged, uncertain=verdict.uncertain)
    assert verdict.valid, verdict
    assert verdict.acknowledged
    text = writer.history.read_text()
    figures.note(seen_again=text.count("duplicates=") - text.count("duplicates=0"))
    assert text.count("duplicates=") > text.count("duplicates=0"), "no acknowledgement was ever lost: cut more"


@pytest.mark.parametrize("directions", [(TO_SHARD,), (TO_CLIENT,), (TO_SHARD, TO_CLIENT)], ids=["to", "from", "both"])
def test_a_partition_heals(directions, start_shard, start_writer, soak, figures):
    """Calls end at their deadlines while it lasts; afterwards everything goes on, and nothing is there twice."""
    shard = start_shard(capacity=2_000_000)
    with Proxy(shard.address) as proxy, connect([shard.address], spec=SPEC) as direct:
        writer = start_writer([proxy.address], 1, pause_s=0.001)
        writer.wait_for_lines(10)
        with connect([proxy.address], spec=SPEC, prefetch=2) as replay:
            replay.sample(8)
            for _ in range(soak.count(1, 2)):
                proxy.silence(*directions)
                begin = time.monotonic()
                with pytest.raises(HeadraceError):
                    while True:
                        replay.sample(8, timeout_s=0.5)
                assert time.monotonic() - begin < 10.0
                assert len(direct.sample(8)) == 8, "those not cut off go on"
                time.sleep(soak.count(1, 12))
                proxy.silence()
                _sample_until_it_works(replay)
        lines = writer.history.read_bytes().count(b"\n")
        writer.wait_for_lines(lines + 10)
        writer.finish()
        verdict = check_history(read_history(writer.history), stored_ids(direct, shard.directory))
    figures.add(acknowledged=verdict.acknowledged, uncertain=verdict.uncertain, surfaced=verdict.surfaced)
    assert verdict.valid, verdict


def _sample_until_it_works(replay, patience_s=25.0):
    deadline = time.monotonic() + patience_s
    while True:
        try:
            batch = replay.sample(8, timeout_s=2.0)
        except HeadraceError:
            assert time.monotonic() < deadline
            continue
        check_bodies(batch.columns)
        return


def test_a_silent_client_holds_nobody_up(start_shard, soak):
    """Clients that ask for large batches and never read the replies, until no room is left for more of them."""
    shard = start_shard(capacity=20_000)
    with connect([shard.address], spec=SPEC, prefetch=0) as good, Proxy(shard.address) as proxy:
        good.insert(rows(0, 20_000), timeout_s=20.0)
        silent = [RemoteShard(proxy.address, 20.0, transport="grpc") for _ in range(8)]
        proxy.silence(TO_CLIENT)
        large = SampleRequest(np.array([_LARGE // SPEC.record_size]), 0.0, Updates(), 0.2)
        calls = [port.sample(large) for port in silent for _ in range(10)]  # more than 1.6 GB together
        deadline = time.monotonic() + 20
        while "bytes" not in (waits := good.stats().shards[0].waits):
            assert time.monotonic() < deadline, waits
        for _ in range(soak.count(50, 1000)):
            check_bodies(good.sample(64, timeout_s=5.0).columns)
        assert good.insert(rows(20_000, 100), timeout_s=5.0).accepted == 100
        assert not all(call.done() for call in calls)
        proxy.cut()
        for port in silent:
            port.close()
