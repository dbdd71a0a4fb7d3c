"""The counters of a server and of its shard, against counts by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from replay_server import Field, InvalidRecord, RecordSpec, wire
from replay_server.arrivals import Arrivals
from replay_server.attachments import Attachments
from replay_server.call_meter import LATENCY_BOUNDS, CallMeter
from replay_server.documents import stats_from
from replay_server.frames import Layout
from replay_server.messages import Hello, InsertRequest, SampleRequest, Stamp, Updates
from replay_server.reply_budget import ReplyBudget
from replay_server.service import ReplayService
from replay_server.shard import Shard
from replay_server.table import Table
from replay_server.wire import METHODS

SPEC = RecordSpec((Field("x", "float32"),))


def test_calls_are_sorted_into_classes_of_latency():
    meter = CallMeter(("A", "B"))
    for seconds in (0.0, 0.00005, 0.00006, 0.7, 99.0):
        meter.answered("A", seconds, 10, 100)
    meter.refused("StaleEpoch")
    meter.refused("StaleEpoch")
    (name, calls), *others = meter.calls().items()
    assert (name, others, meter.refusals()) == ("A", [], {"StaleEpoch": 2})
    assert (calls.count, calls.bytes_in, calls.bytes_out) == (5, 50, 500)
    assert calls.seconds == pytest.approx(99.70011)
    latency = [0] * (len(LATENCY_BOUNDS) + 1)
    latency[0], latency[1], latency[LATENCY_BOUNDS.index(1.0)], latency[-1] = 2, 1, 1, 1
    assert list(calls.latency) == latency


def test_a_shard_counts_what_it_did_and_its_service_how_it_was_asked():
    shard = Shard(Table(SPEC, 100, shard=3))
    hello = Hello("here", 3, 0, 100, 1, 1 << 20, SPEC)
    service = ReplayService(shard, hello, None, Attachments(), ReplyBudget(1 << 20, 1), CallMeter(METHODS))
    arrivals = Arrivals(1)
    typed = {name: service._typed(name, arrivals) for name in ("Insert", "Sample", "Stats")}
    call = {
        name: lambda frame, context, method=method: method(iter([frame]), context) for name, method in typed.items()
    }
    rows = SPEC.pack({"x": np.arange(5, dtype=np.float32)})
    layout = Layout(SPEC, hello.table)
    chunk = wire.encode_insert(InsertRequest(rows, None, Stamp(1, 0, 0, True), 0.0), layout)
    assert call["Insert"](chunk, None)
    answer = call["Insert"](chunk, None)
    drawn = shard.sample(SampleRequest(np.array([4]), 4.0, Updates(), 0.0))
    shard.clear()
    sample = wire.encode_sample(
        SampleRequest(np.array([], np.int64), 0.0, Updates(drawn.keys[:1], np.array([0.5])), 0.0), layout
    )
    assert call["Sample"](sample, None)

    class Aborted(Exception):
        pass

    class Context:
        def abort(self, code, details):
            raise Aborted(details)

    with pytest.raises(Aborted, match="InvalidRecord"):
        call["Insert"](chunk[:-1], Context())
    arrivals.close()
    stats = service.stats()
    assert (stats.shard, stats.inserted, stats.duplicates, stats.drawn) == (3, 5, 5, 4)
    assert (stats.updated, stats.stale) == (0, 1)
    assert stats.refusals == {InvalidRecord.__name__: 1}
    assert {name: c.count for name, c in stats.calls.items()} == {"Insert": 2, "Sample": 1}
    assert (stats.calls["Insert"].bytes_in, stats.calls["Insert"].bytes_out) == (2 * len(chunk), 2 * len(answer))
    assert stats_from(json.loads(json.dumps(asdict(stats)))) == stats
