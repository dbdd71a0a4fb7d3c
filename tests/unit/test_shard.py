"""One shard: waiting, fencing, storing every chunk once."""

import threading
import time

import numpy as np
import pytest

from replay_server import ConfigError, Field, InvalidRecord, RateLimiter, RecordSpec, StaleEpoch
from replay_server.errors import Deadlocked, WriterEvicted
from replay_server.messages import InsertRequest, SampleRequest, Stamp, UpdateRequest, Updates
from replay_server.shard import Shard
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"),))


def chunk(numbers, stamp=None, wait_s=0.0):
    return InsertRequest(SPEC.pack({"number": np.asarray(numbers, np.int64)}), None, stamp, wait_s)


def ask(rows, credit=None, wait_s=0.0, updates=None):
    credit = float(rows) if credit is None else credit
    return SampleRequest(np.array([rows]), credit, updates or Updates(), wait_s)


def make(capacity=100, limiter=None, **options):
    return Shard(Table(SPEC, capacity, incarnation=4), limiter, **options)


def test_a_chunk_sent_twice_is_stored_once_in_any_order():
    shard = make()
    stamps = [Stamp(7, 0, sequence) for sequence in (2, 0, 1, 3)]
    for stamp in [*stamps, *stamps]:
        shard.insert(chunk([stamp.sequence], stamp))
    numbers = SPEC.columns(shard.table.records[: shard.table.size])["number"]
    assert numbers.tolist() == [2, 0, 1, 3]
    reply = shard.insert(chunk([9, 9], Stamp(7, 0, 1)))
    assert (reply.accepted, reply.duplicates) == (0, 2)


def test_a_newer_epoch_fences_the_older():
    shard = make()
    shard.insert(chunk([1], Stamp(7, 0, 0)))
    shard.insert(chunk([2], Stamp(7, 1, 0)))
    for _ in range(2):
        with pytest.raises(StaleEpoch, match="epoch 0 was replaced by epoch 1"):
            shard.insert(chunk([3, 3, 3], Stamp(7, 0, 1)))
    shard.insert(chunk([4], Stamp(8, 0, 0)))
    assert shard.stats().fenced == 6
    assert shard.stats().inserted == 3


def test_an_older_epoch_that_waits_is_fenced_when_a_newer_one_comes():
    shard = make(limiter=RateLimiter(1, 1.0, 1.0))
    shard.insert(chunk([1, 1, 1], Stamp(7, 0, 0)))
    outcome = []

    def late():
        try:
            shard.insert(chunk([2], Stamp(7, 0, 1), wait_s=5.0))
        except StaleEpoch as error:
            outcome.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    while shard.stats().blocked_on is None:
        time.sleep(0.001)
    assert shard.insert(chunk([3], Stamp(7, 1, 0))).blocked_on == "samples"
    shard.sample(ask(3))
    thread.join(5)
    assert len(outcome) == 1
    assert shard.stats().inserted == 3


def test_blocked_calls_say_why_and_change_nothing():
    shard = make(limiter=RateLimiter(5, 2.0, 3.0))
    assert shard.sample(ask(1)).blocked_on == "min_size"
    shard.insert(chunk(range(7)))
    assert shard.insert(chunk([1])).blocked_on == "samples"
    shard.sample(ask(8))
    assert shard.sample(ask(1)).blocked_on == "inserts"
    assert (shard.stats().inserted, shard.stats().sampled, shard.stats().size) == (7, 8.0, 7)


def test_rows_without_credit_wait_for_min_size_only():
    shard = make(limiter=RateLimiter(5, 2.0, 3.0))
    assert shard.sample(ask(1, credit=0.0)).blocked_on == "min_size"
    assert shard.sample(ask(0, credit=0.0)).blocked_on is None
    shard.insert(chunk(range(7)))
    shard.sample(ask(8))
    assert len(shard.sample(ask(4, credit=0.0)).records) == 4
    assert shard.stats().sampled == 8.0


def test_updates_are_applied_even_when_the_sampling_is_blocked():
    shard = make(limiter=RateLimiter(1, 1.0, 2.0))
    shard.insert(chunk(range(2)))
    keys = shard.sample(ask(3)).keys
    reply = shard.sample(ask(1, updates=Updates(keys, np.zeros(3))))
    assert reply.blocked_on == "inserts"
    assert reply.applied == 3
    assert reply.view.mass < 2.0


def test_returned_credit_lets_samples_pass_again():
    shard = make(limiter=RateLimiter(1, 1.0, 1.0))
    shard.insert(chunk([1]))
    shard.sample(ask(5))
    assert shard.sample(ask(5)).blocked_on == "inserts"
    shard.update(UpdateRequest(Updates(), returned=5.0))
    assert shard.sample(ask(5)).blocked_on is None


@pytest.mark.parametrize("credit", [-1.0, float("nan"), float("inf")])
def test_bad_credits_are_refused(credit):
    shard = make()
    shard.insert(chunk([1]))
    with pytest.raises(InvalidRecord):
        shard.sample(ask(1, credit=credit))
    with pytest.raises(InvalidRecord):
        shard.update(UpdateRequest(Updates(), returned=credit))
    assert shard.stats().sampled == 0.0


def test_a_waiting_sample_goes_on_when_records_come():
    shard = make(limiter=RateLimiter(3))
    replies = []
    thread = threading.Thread(target=lambda: replies.append(shard.sample(ask(2, wait_s=10.0))))
    thread.start()
    while shard.stats().blocked_on != "min_size":
        time.sleep(0.001)
    shard.insert(chunk(range(3)))
    thread.join(5)
    assert len(replies[0].records) == 2
    assert shard.stats().blocked_on is None


def test_waiting_ends_at_the_deadline():
    shard = make(limiter=RateLimiter(3))
    begin = time.monotonic()
    assert shard.sample(ask(1, wait_s=0.1)).blocked_on == "min_size"
    assert 0.1 <= time.monotonic() - begin < 5.0


def test_one_waiter_too_many_is_sent_back_at_once():
    shard = make(limiter=RateLimiter(3), max_waiters=2)
    threads = [threading.Thread(target=shard.sample, args=(ask(1, wait_s=10.0),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while sum(waits.calls for waits in shard.stats().waits.values()) < 2:
        time.sleep(0.001)
    begin = time.monotonic()
    assert shard.sample(ask(1, wait_s=10.0)).blocked_on == "min_size"
    assert time.monotonic() - begin < 5.0
    assert shard.insert(chunk(range(3), wait_s=1.0)).accepted == 3
    for thread in threads:
        thread.join(5)


def test_a_refused_chunk_leaves_no_mark():
    shard = make(capacity=2)
    with pytest.raises(InvalidRecord):
        shard.insert(chunk(range(3), Stamp(1, 0, 0)))
    assert shard.insert(chunk(range(2), Stamp(1, 0, 0))).accepted == 2


def test_min_size_beyond_capacity_is_refused():
    with pytest.raises(ConfigError, match="raise capacity or lower min_size"):
        make(capacity=9, limiter=RateLimiter(10))


def test_many_threads_lose_nothing():
    shard = make(capacity=10_000, limiter=RateLimiter(10, 3.0, 100.0))
    stop = threading.Event()

    def write(writer):
        for sequence in range(60):
            stamp = Stamp(writer, 0, sequence)
            while shard.insert(chunk([writer * 1000 + sequence] * 3, stamp, wait_s=0.05)).blocked_on:
                pass

    def read():
        while not stop.is_set():
            reply = shard.sample(ask(16, wait_s=0.01))
            shard.update(UpdateRequest(Updates(reply.keys, np.ones(len(reply.keys)))))

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join(30)
    stop.set()
    for thread in readers:
        thread.join(5)
    shard.check_valid()
    stats = shard.stats()
    assert stats.inserted == stats.size == 4 * 60 * 3
    assert abs(stats.inserted * 3.0 - stats.sampled - 30.0) <= 100.0 + 16 * 2 + 9 * 4


class Hands:
    """A clock moved by hand."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


def stuck_shard(clock):
    """Every record has priority zero, so nothing can be sampled; the limiter wants samples before more inserts."""
    shard = make(limiter=RateLimiter(2, 1.0, 1.0), clock=clock)
    for _ in range(3):
        shard.insert(InsertRequest(chunk([1]).records, np.zeros(1), None, 0.0))
    return shard


def test_both_sides_waiting_for_each_other_is_an_error_within_ten_seconds():
    clock = Hands()
    shard = stuck_shard(clock)
    with pytest.raises(Deadlocked, match="neither insert .* nor sample"):
        for _ in range(20):
            assert shard.insert(chunk([1])).blocked_on == "samples"
            assert shard.sample(ask(1)).blocked_on == "inserts"
            clock.sleep(0.5)
    assert clock.now() < 10.0


def test_one_side_alone_may_wait_for_ever():
    clock = Hands()
    shard = stuck_shard(clock)
    for _ in range(100):
        assert shard.insert(chunk([1])).blocked_on == "samples"
        clock.sleep(0.5)
    assert shard.sample(ask(1)).blocked_on == "inserts"


def test_a_caller_that_gave_up_does_not_count_and_movement_starts_anew():
    clock = Hands()
    shard = stuck_shard(clock)
    for turn in range(100):
        assert shard.insert(chunk([1])).blocked_on == "samples"
        if turn % 8 == 0:
            assert shard.sample(ask(1)).blocked_on == "inserts"
        clock.sleep(0.5)
    for _ in range(9):
        assert shard.insert(chunk([1])).blocked_on == "samples"
        assert shard.sample(ask(1)).blocked_on == "inserts"
        clock.sleep(0.5)
    shard.clear()
    shard.insert(InsertRequest(chunk([1, 1, 1]).records, np.zeros(3), None, 0.0))
    assert shard.insert(chunk([1])).blocked_on == "samples"
    assert shard.sample(ask(1)).blocked_on == "inserts"
    clock.sleep(0.5)
    assert shard.insert(chunk([1])).blocked_on == "samples"


def test_a_writer_nobody_remembers_is_refused_unless_it_says_it_is_new():
    shard = make()
    with pytest.raises(WriterEvicted, match="open a new writer"):
        shard.insert(chunk([1], Stamp(7, 0, 5, opens=False)))
    shard.insert(chunk([1], Stamp(7, 0, 5)))
    shard.insert(chunk([1], Stamp(7, 0, 6, opens=False)))
    assert shard.stats().inserted == 2


@pytest.mark.parametrize("credit", [-1.0, 1e308, 2.0**41, float("inf"), float("nan")])
def test_credits_that_no_batch_needs_are_refused(credit):
    shard = Shard(Table(RecordSpec((Field("number", "int64"),)), 8))
    nothing = Updates()
    with pytest.raises(InvalidRecord, match="credit"):
        shard.sample(SampleRequest(np.zeros(0, np.int64), credit, nothing, 0.0))
    with pytest.raises(InvalidRecord, match="credit"):
        shard.update(UpdateRequest(nothing, credit))
    assert shard.stats().sampled == 0.0
