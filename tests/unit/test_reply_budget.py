"""Room for replies: never more than the limit, waits that end, the reason `bytes`."""

import threading
import time

import numpy as np
import pytest

from replay_server import Field, RecordSpec, wire
from replay_server.attachments import Attachments
from replay_server.errors import Unavailable
from replay_server.frames import Layout
from replay_server.messages import Hello, SampleRequest, Updates
from replay_server.reply_budget import ReplyBudget
from replay_server.service import ReplayService
from replay_server.shard import Shard
from replay_server.table import Table

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
    return ReplayService(shard, Hello("here", 0, 0, 100, 1, 1 << 20, SPEC), None, Attachments(), budget), budget, shard


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


def test_a_caller_that_has_gone_takes_no_room(service):
    service, budget, _ = service
    with pytest.raises(Unavailable):
        ask(service, 10, Context(gone=True))
    assert budget.taken == 0
