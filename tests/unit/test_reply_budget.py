"""Room for replies: never more than the limit, waits that end, the reason `bytes`."""

import threading
import time
import tracemalloc

import numpy as np
import pytest

from replay_server import Field, RecordSpec, wire
from replay_server.attachments import Attachments
from replay_server.call_meter import CallMeter
from replay_server.errors import CheckpointError, Unavailable
from replay_server.frames import Layout
from replay_server.messages import Hello, SampleRequest, Updates
from replay_server.reply_budget import ReplyBudget
from replay_server.service import ReplayService
from replay_server.shard import Shard
from replay_server.table import Table
from replay_server.wire import METHODS

SPEC = RecordSpec((Field("number", "int64"),))
LAYOUT = Layout(SPEC)


def test_room_is_taken_and_given_back():
    budget = ReplyBudget(100, 1)
    assert budget.take(60, 0.0)
    assert not budget.take(60, 0.0)
    assert budget.take(40, 0.0)
    budget.give_back(60)
    assert budget.take(50, 0.0)
    assert budget.taken == 90
    budget.give_back(50)
    budget.give_back(40)
    assert budget.take(1000, 0.0)
    assert not budget.take(1, 0.0)


def test_waiting_ends_with_room_or_at_the_deadline():
    budget = ReplyBudget(100, 2)
    budget.take(100, 0.0)
    begin = time.monotonic()
    assert not budget.take(10, 0.1)
    assert time.monotonic() - begin >= 0.1
    results = []
    waiters = [threading.Thread(target=lambda: results.append(budget.take(50, 60.0)), daemon=True) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    while budget._waiting < 2:
        time.sleep(0.001)
    assert not budget.take(10, 20.0)  # with as many waiting already
    budget.give_back(100)
    for waiter in waiters:
        waiter.join(20)
    assert results == [True, True]
    assert budget.taken == 100


class Context:
    """A call as gRPC shows it to a handler."""

    def __init__(self, gone=False):
        self.gone = gone
        self.callbacks = []

    def add_callback(self, callback):
        self.callbacks.append(callback)
        return not self.gone


@pytest.fixture
def service():
    shard = Shard(Table(SPEC, 100))
    shard.table.insert(SPEC.pack({"number": np.arange(50)}))
    budget = ReplyBudget(wire.reply_bytes(40, SPEC), 1)
    hello = Hello("here", 0, 0, 100, 1, 1 << 20, SPEC)
    return ReplayService(shard, hello, None, Attachments(), budget, CallMeter(METHODS)), budget, shard


def ask(service, rows, context, updates=None):
    request = SampleRequest(np.array([rows]), 0.0, updates or Updates(), 0.01)
    return wire.decode_sample_reply(service._sample(wire.encode_sample(request, LAYOUT), context), LAYOUT)


def test_replies_that_nobody_has_read_hold_up_further_ones(service):
    service, budget, shard = service
    first = Context()
    reply = ask(service, 40, first)
    assert len(reply.keys) == 40
    assert budget.taken == wire.reply_bytes(40, SPEC)
    updates = Updates(reply.keys[:1].copy(), np.array([3.0]))
    blocked = ask(service, 10, Context(), updates)
    assert (blocked.blocked_on, len(blocked.keys), blocked.applied) == ("bytes", 0, 1)
    assert ask(service, 0, None).blocked_on is None
    for callback in first.callbacks:
        callback()
    assert budget.taken == 0
    assert len(ask(service, 10, Context()).keys) == 10
    shard.check_valid()


def test_waits_for_room_are_counted_and_shown(service):
    service, budget, _ = service
    assert service.stats().waits == {} and service.stats().blocked_on is None
    ask(service, 40, Context())
    ask(service, 10, Context())
    waits = service.stats().waits["bytes"]
    assert waits.calls == 1 and 0.01 <= waits.seconds < 5.0
    waiter = threading.Thread(target=budget.take, args=(1 << 20, 20.0), daemon=True)
    waiter.start()
    while service.stats().blocked_on != "bytes":
        time.sleep(0.001)
    budget.give_back(budget.taken)
    waiter.join(20)
    assert service.stats().blocked_on is None


def test_waiting_for_room_comes_off_what_the_shard_may_wait(service, monkeypatch):
    service, budget, shard = service
    asked = []
    sample = shard.sample
    monkeypatch.setattr(
        shard, "sample", lambda request, into=None: (asked.append(request.wait_s), sample(request, into))[1]
    )
    budget.take(budget._limit, 0.0)
    threading.Timer(0.1, budget.give_back, (budget._limit,)).start()
    request = SampleRequest(np.array([5]), 0.0, Updates(), 0.5)
    reply = wire.decode_sample_reply(service._sample(wire.encode_sample(request, LAYOUT), Context()), LAYOUT)
    assert len(reply.keys) == 5
    assert 0.0 <= asked[0] <= 0.45


def test_a_reply_is_made_once_and_not_copied():
    wide, rows = RecordSpec((Field("numbers", "float32", (128,)),)), 10_000
    shard = Shard(Table(wide, 100))
    shard.table.insert(wide.pack({"numbers": np.zeros((50, 128), np.float32)}))
    hello = Hello("here", 0, 0, 100, 1, 1 << 20, wide)
    service = ReplayService(shard, hello, None, Attachments(), ReplyBudget(1 << 30, 1), CallMeter(METHODS))
    frame = wire.encode_sample(SampleRequest(np.array([rows]), 0.0, Updates(), 0.0), Layout(wide))
    service._sample(frame, Context())  # compiles
    tracemalloc.start()
    try:
        reply = service._sample(frame, Context())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(reply) <= peak < 1.5 * len(reply)


def test_few_saves_take_threads(tmp_path, monkeypatch):
    shard = Shard(Table(SPEC, 100))
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(path, pace):
        begun.release()
        assert go_on.wait(20)

    monkeypatch.setattr(shard, "save", slow)
    hello = Hello("here", 0, 0, 100, 1, 1 << 20, SPEC)
    service = ReplayService(shard, hello, tmp_path, Attachments(), ReplyBudget(1 << 20, 1), CallMeter(METHODS))
    frame = wire.encode_json({"directory": "."}, reply=False)
    saving = [threading.Thread(target=service._save, args=(frame, None), daemon=True) for _ in range(2)]
    for thread in saving:
        thread.start()
        assert begun.acquire(timeout=20)
    for _ in range(3):
        with pytest.raises(CheckpointError, match="try again later"):
            service._save(frame, None)
    go_on.set()
    for thread in saving:
        thread.join(20)
    assert wire.decode_json(service._save(frame, None), reply=True) == {"name": "replay-0.h5"}


def test_a_caller_that_has_gone_takes_no_room(service):
    service, budget, _ = service
    with pytest.raises(Unavailable):
        ask(service, 10, Context(gone=True))
    assert budget.taken == 0
