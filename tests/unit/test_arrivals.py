"""Calls whose message does not come are ended: late ones when many wait, and only much later when few do."""

import time

import pytest

from replay_server.arrivals import HURRIED_S, PATIENT_S, Arrivals
from replay_server.errors import InvalidRecord


class Call:
    """A call as gRPC shows it to a handler, and its messages."""

    def __init__(self):
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def arrivals():
    made = Arrivals(few=2)
    yield made
    made.close()


def waiting(arrivals, calls, then):
    """Runs `then` while all calls wait for their messages."""
    if not calls:
        then()
        return

    def messages():
        waiting(arrivals, calls[1:], then)
        yield b"message"

    assert arrivals.first(messages(), calls[0]) == b"message"


def test_a_few_may_take_their_time(arrivals):
    calls = [Call(), Call()]

    def look():
        now = time.monotonic()
        assert len(arrivals) == 2
        arrivals.end_late(now + PATIENT_S - 1.0)
        assert not any(call.cancelled for call in calls)
        arrivals.end_late(now + PATIENT_S)
        assert all(call.cancelled for call in calls)

    waiting(arrivals, calls, look)
    assert len(arrivals) == 0


def test_many_are_hurried(arrivals):
    calls = [Call(), Call(), Call()]

    def look():
        now = time.monotonic()
        arrivals.end_late(now + HURRIED_S - 1.0)
        assert not any(call.cancelled for call in calls)
        arrivals.end_late(now + HURRIED_S)
        assert all(call.cancelled for call in calls)

    waiting(arrivals, calls, look)


def test_a_call_that_ends_without_a_message_is_refused(arrivals):
    with pytest.raises(InvalidRecord, match="without a message"):
        arrivals.first(iter(()), Call())
    assert len(arrivals) == 0
