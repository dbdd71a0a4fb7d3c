"""The stream writer against a shard whose replies are late, lost or refusals."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from replay_server import Field, InvalidRecord, RateLimiter, RecordSpec, ReplayTimeout, StaleEpoch, Unavailable
from replay_server.errors import JournalError, StorageFull, WriterEvicted
from replay_server.local import LocalShard
from replay_server.messages import Finished, InsertReply, InsertRequest, SampleRequest, Stamp, Updates, View
from replay_server.reasons import WaitTimes
from replay_server.shard import Shard
from replay_server.table import Table
from replay_server.writer import StreamWriter

SPEC = RecordSpec((Field("number", "int64"),))


def rows(numbers):
    return {"number": np.asarray(numbers, np.int64)}


class FarShard(LocalShard):
    """A shard behind a network: each call ends when the test lets it, or loses its request or its reply."""

    synchronous = False

    def __init__(self, shard):
        super().__init__(shard)
        self.held = []
        self.hold = False
        self.lose_requests = self.lose_replies = 0
        self.chunks = []
        self.opens = []
        self.lost_sequences = set()

    def insert(self, request):
        self.chunks.append(len(request.records))
        self.opens.append(request.stamp.opens)
        if request.stamp.sequence in self.lost_sequences:
            return _Held(None)
        if self.lose_requests:
            self.lose_requests -= 1
            return Finished(_unavailable)
        call = super().insert(request)
        if self.lose_replies:
            self.lose_replies -= 1
            return Finished(_unavailable)
        if not self.hold:
            return call
        self.held.append(_Held(call))
        return self.held[-1]

    def release(self):
        for call in self.held:
            call.released = True
        self.hold = False


class _Held:
    def __init__(self, call):
        self._call = call
        self.released = False

    def done(self):
        return self.released

    def result(self, timeout_s):
        if not self.released:
            raise ReplayTimeout("held", "reply")
        return self._call.result(timeout_s)


def _unavailable():
    raise Unavailable("lost")


WAITS = WaitTimes()


def make(limiter=None, capacity=100_000):
    shard = Shard(Table(SPEC, capacity), limiter)
    port = FarShard(shard)
    return shard, port, StreamWriter(port, Stamp(1, 0, 0), max_in_flight=3, waits=WAITS)


def stored(shard):
    return sorted(SPEC.columns(shard.table.records[: shard.table.size])["number"].tolist())


def test_lost_requests_and_replies_are_sent_again_and_stored_once():
    shard, port, writer = make()
    port.lose_requests = port.lose_replies = 2
    for number in range(20):
        writer.append(rows([number, 100 + number]))
    ack = writer.flush(timeout_s=5.0)
    assert ack.accepted + ack.duplicates == 40
    assert ack.unknown == 0
    assert ack.duplicates > 0
    assert stored(shard) == sorted([*range(20), *range(100, 120)])


def test_small_appends_travel_together_while_a_chunk_is_under_way():
    shard, port, writer = make()
    port.hold = True
    for number in range(100):
        writer.append(rows([number]))
    assert port.chunks == [1]
    port.release()
    writer.flush()
    assert port.chunks == [1, 99]
    assert stored(shard) == list(range(100))


def test_rows_with_and_without_priorities_do_not_mix():
    shard, port, writer = make()
    port.hold = True
    writer.append(rows([0]))
    writer.append(rows([1]))
    writer.append(rows([2]), np.array([0.0]))
    port.release()
    writer.flush()
    assert shard.table.export_state().priorities.tolist() == [1.0, 1.0, 0.0]


def test_a_full_window_takes_nothing_until_the_deadline():
    shard, port, writer = make()
    port.hold = True
    for number in range(3):
        writer.append(rows(range(1000 * number, 1000 * number + 300)))
    for _ in range(2):
        with pytest.raises(ReplayTimeout) as caught:
            writer.append(rows(range(5000, 5300)), timeout_s=0.05)
        assert caught.value.blocked_on == "reply"
    assert WAITS.seconds["reply"] >= 0.09
    port.release()
    writer.append(rows(range(5000, 5300)))
    assert writer.flush().accepted == 1200
    assert len(stored(shard)) == len(set(stored(shard))) == 1200


def test_what_waits_stays_bounded_while_the_limiter_blocks():
    shard, _, writer = make(RateLimiter(1, 1.0, 5.0))
    refused = 0
    for number in range(2000):
        try:
            writer.append(rows([number]), timeout_s=0.0)
        except ReplayTimeout as error:
            assert error.blocked_on == "samples"
            refused += 1
    assert refused > 1000
    waiting = sum(chunk.rows for chunk in writer._pending) + writer._gathered_rows
    assert waiting <= 4 * 256
    assert shard.stats().inserted <= 7


def test_blocked_chunks_go_through_when_samples_come():
    shard, _, writer = make(RateLimiter(1, 1.0, 5.0))
    sent = 0
    for _ in range(3000):
        try:
            writer.append(rows([sent]), timeout_s=0.0)
            sent += 1
        except ReplayTimeout:
            shard.sample(SampleRequest(np.array([1]), 64.0, Updates(), 0.0))
    shard.sample(SampleRequest(np.array([1]), 5000.0, Updates(), 0.0))
    writer.flush()
    assert stored(shard) == list(range(sent))


def test_at_the_deadline_of_a_flush_the_rest_is_unknown():
    _, port, writer = make()
    writer.append(rows([1, 2]))
    writer.flush()
    port.hold = True
    writer.append(rows([3, 4, 5]))
    ack = writer.flush(timeout_s=0.05)
    assert (ack.accepted, ack.unknown, writer.refused) == (0, 3, 0)
    port.release()
    assert writer.flush().accepted == 0
    writer.append(rows([6]))
    assert writer.flush().accepted == 1


def test_refused_by_the_limiter_is_known_not_to_be_stored():
    shard, _, writer = make(RateLimiter(1, 1.0, 2.0))
    writer.append(rows(range(10)))
    writer.flush()
    writer.append(rows([50]), timeout_s=0.0)
    ack = writer.flush(timeout_s=0.1)
    assert (ack.unknown, writer.refused, writer.blocked_on) == (1, 1, "samples")
    assert stored(shard) == list(range(10))


def test_an_unreachable_shard_is_reported_and_nothing_taken():
    _, port, writer = make()
    port.lose_requests = 10**6
    for _ in range(3):
        writer.append(rows(range(300)))
    with pytest.raises(Unavailable):
        writer.append(rows(range(300)), timeout_s=0.1)
    port.lose_requests = 0
    assert writer.flush().accepted == 900


def test_a_fenced_writer_stays_fenced():
    shard, port, writer = make()
    writer.append(rows([1]))
    StreamWriter(port, Stamp(1, 1, 0)).append(rows([2]))
    writer.append(rows([3]))
    for _ in range(2):
        with pytest.raises(StaleEpoch):
            writer.flush()
        with pytest.raises(StaleEpoch):
            writer.append(rows([4]))
    writer.close()
    assert stored(shard) == [1, 2]


def test_a_refused_chunk_is_raised_once_and_the_others_live():
    spec = RecordSpec((Field("x", "float32"),))
    shard = Shard(Table(spec, 100))
    port = FarShard(shard)
    writer = StreamWriter(port, Stamp(1, 0, 0))
    writer.append({"x": np.array([np.nan], np.float32)})
    with pytest.raises(InvalidRecord, match="not finite"):
        writer.append({"x": np.array([1], np.float32)})
    writer.append({"x": np.array([1], np.float32)})
    assert writer.flush().accepted == 1


@pytest.mark.parametrize(
    ("given", "priorities"),
    [
        ({"number": np.zeros(2, np.int32)}, None),
        ({"other": np.zeros(2, np.int64)}, None),
        (np.zeros((2, 7), np.uint8), None),
        ({"number": np.zeros(2, np.int64)}, np.ones(3)),
        ({"number": np.zeros(2, np.int64)}, np.ones((2, 1))),
    ],
)
def test_rows_of_another_layout_are_refused_at_once(given, priorities):
    shard, _, writer = make()
    with pytest.raises(InvalidRecord):
        writer.append(given, priorities)
    assert writer.flush().accepted == 0
    assert shard.stats().inserted == 0


def test_in_this_process_an_append_is_stored_on_return_or_refused_whole():
    shard = Shard(Table(SPEC, 1000), RateLimiter(1, 1.0, 2.0))
    writer = StreamWriter(LocalShard(shard), Stamp(1, 0, 0))
    writer.append(rows(range(5)), timeout_s=0.0)
    assert stored(shard) == list(range(5))
    before = writer.sequence
    with pytest.raises(ReplayTimeout) as caught:
        writer.append(rows([7]), timeout_s=0.0)
    assert caught.value.blocked_on == "samples"
    assert writer.sequence == before
    shard.sample(SampleRequest(np.array([1]), 64.0, Updates(), 0.0))
    writer.append(rows([7]), timeout_s=0.0)
    assert stored(shard) == [*range(5), 7]
    assert writer.flush(timeout_s=0.0).accepted == 6


class Disk:
    """Makes a shard's inserts fail for a while as a full disk does."""

    def __init__(self, port):
        self.port, self.full = port, True
        self._insert = port.insert
        port.insert = self

    def __call__(self, request):
        return Finished(_full) if self.full else self._insert(request)


def _full():
    raise StorageFull("the disk is full")


def test_a_full_disk_is_waited_for_until_the_deadline_and_nothing_was_stored_then():
    shard, port, writer = make()
    writer.append(rows([1]))
    assert writer.flush().accepted == 1
    disk = Disk(port)
    for number in range(3):
        writer.append(rows(range(1000 * number, 1000 * number + 300)))
    with pytest.raises(StorageFull):
        writer.append(rows(range(5000, 5300)), timeout_s=0.1)
    with pytest.raises(StorageFull):
        writer.flush(timeout_s=0.1)
    assert (writer.refused, writer.blocked_on) == (900, "disk")
    assert stored(shard) == [1]
    writer.append(rows([2]))
    disk.full = False
    assert writer.flush().accepted == 1
    assert stored(shard) == [1, 2]


def test_only_until_the_first_acknowledgement_does_a_chunk_open_its_writer():
    _, port, writer = make()
    port.hold = True
    writer.append(rows(range(300)))
    writer.append(rows(range(300)))
    port.release()
    writer.flush()
    writer.append(rows([1]))
    writer.flush()
    assert port.opens == [True, True, False]
    port._shard = Shard(Table(SPEC, 100))  # it has forgotten everything, the writer too
    writer.append(rows([2, 3]))
    for _ in range(2):
        with pytest.raises(WriterEvicted, match="open a new writer"):
            writer.flush()
    ack = writer.abandon()
    assert (ack.accepted, ack.unknown, writer.refused) == (0, 2, 2)
    assert port._shard.stats().inserted == 0


def test_a_writer_nobody_has_acknowledged_survives_a_shard_that_forgets():
    _, port, writer = make()
    port.lose_replies = 1
    writer.append(rows([1, 2]))
    port._shard = Shard(Table(SPEC, 100))
    assert writer.flush().accepted == 2
    assert stored(port._shard) == [1, 2]


def test_no_chunk_is_sent_further_ahead_than_a_shard_can_tell_apart():
    """A chunk without an answer holds the others up before its number would pass for stored."""
    shard, port, writer = make(capacity=10_000_000)
    port.lost_sequences = {0}
    writer._chunk_rows = 1
    writer.append(rows(range(6000)), timeout_s=0.0)
    assert len(port.chunks) <= 1024
    assert writer.flush(timeout_s=0.3).unknown >= 6000 - 1024
    port.lost_sequences = set()
    writer.append(rows([7]))
    assert writer.flush().accepted == 1
    assert shard.stats().inserted <= 1024


def test_acknowledgements_say_what_they_survive():
    _, port, writer = make()
    port.hello = replace(port.hello, durability="journal")
    writer.append(rows([1]))
    assert writer.flush().level == "journal"


def _failed():
    raise JournalError("the journal's disk failed to write back")


def test_after_a_disk_has_failed_the_fate_of_a_chunk_is_unknown_and_it_keeps_its_stamp():
    shard, port, writer = make()
    writer.append(rows([1]))
    assert writer.flush().accepted == 1
    insert, port.insert = port.insert, lambda request: (insert(request), Finished(_failed))[1]
    writer.append(rows([2, 3]))
    for _ in range(2):
        with pytest.raises(JournalError):
            writer.flush(timeout_s=0.1)
    port.insert = insert  # the shard was restarted, and its journal holds the chunk
    ack = writer.flush()
    assert (ack.accepted, ack.duplicates, ack.unknown) == (0, 2, 0)
    assert stored(shard) == [1, 2, 3]
    port.insert = lambda request: Finished(_failed)
    writer.append(rows([4]))
    with pytest.raises(JournalError):
        writer.flush(timeout_s=0.1)
    assert (writer.abandon().unknown, writer.refused) == (1, 0)


def test_in_this_process_a_chunk_of_unknown_fate_is_not_followed_by_another_of_its_stamp():
    shard = Shard(Table(SPEC, 1000))
    port = LocalShard(shard)
    writer = StreamWriter(port, Stamp(1, 0, 0))
    insert = port.insert
    for fails in (_failed, _unavailable):
        port.insert = lambda request, fails=fails: (insert(request), Finished(fails))[1]
        try:
            writer.append(rows([1]), timeout_s=0.05)
        except JournalError:
            assert fails is _failed
        port.insert = insert
        writer.append(rows([2]))
        ack = writer.flush()
        assert (ack.accepted, ack.duplicates, ack.unknown) == (1, 1, 0)
    assert stored(shard) == [1, 1, 2, 2]


class BlockedShard(FarShard):
    """A shard that takes nothing while `blocked`, by a clock that passes only when somebody sleeps or waits inside."""

    def __init__(self, shard, *, full):
        super().__init__(shard)
        self.time, self.calls = 0.0, []
        self.blocked, self.full = True, full

    def now(self):
        return self.time

    def sleep(self, seconds):
        assert seconds > 0.0
        self.time += seconds

    def insert(self, request):
        self.calls.append(self.time)
        if not self.blocked:
            return super().insert(request)
        self.time += 0.0 if self.full else request.wait_s
        reply = InsertReply(0, 0, "samples", View(0.0, 0, 0, 0.0), turned_away=self.full)
        return Finished(lambda: reply)


def blocked_for(seconds, *, full):
    """A writer that has been sent back for so long, as an actor asks: a tenth of a second at a time."""
    port = BlockedShard(Shard(Table(SPEC, 1000)), full=full)
    writer = StreamWriter(port, Stamp(1, 0, 0), max_in_flight=1, gather_rows=1, clock=port)
    writer.append(rows([0]), timeout_s=0.1)
    ask_for(port, writer, seconds)
    return port, writer


def ask_for(port, writer, seconds):
    end = port.time + seconds
    while port.time < end:
        try:
            writer.append(rows([1]), timeout_s=0.1)
        except ReplayTimeout as timeout:
            assert timeout.blocked_on == "samples"
        else:
            return


def test_who_is_turned_away_asks_less_and_less_often_but_every_second():
    port, _ = blocked_for(100.0, full=True)
    pauses = np.diff(port.calls)
    assert pauses[0] <= 0.05 and pauses.max() <= 1.0 + 0.02
    assert 100 <= len(port.calls) <= 250  # one pause is 0.2 to 1 s in the end
    assert pauses[6:].mean() > 0.4 > 0.2 > pauses[:3].mean()


def test_who_waits_inside_comes_back_soon_however_long_it_takes():
    port, _ = blocked_for(20.0, full=False)
    assert np.diff(port.calls).max() <= 0.1 + 0.05


def test_after_a_stored_chunk_pauses_are_short_again():
    port, writer = blocked_for(30.0, full=True)
    port.blocked = False
    ask_for(port, writer, 5.0)
    writer.flush()
    port.blocked, before = True, len(port.calls)
    writer.append(rows([2]), timeout_s=0.1)
    ask_for(port, writer, 0.3)
    assert port.calls[before + 1] - port.calls[before] <= 0.05
    port.blocked = False
    assert writer.flush().unknown == 0


def test_a_shard_turns_away_only_when_as_many_wait_as_may():
    shard = Shard(Table(SPEC, 100), RateLimiter(1, 1.0, 2.0), max_waiters=1)
    first = InsertRequest(SPEC.pack(rows(range(10))), None, None, 0.0)
    assert shard.insert(first).accepted == 10
    reply = shard.insert(first)
    assert (reply.blocked_on, reply.turned_away) == ("samples", False)
    inside = threading.Thread(target=shard.insert, args=(replace(first, wait_s=30.0),))
    inside.start()
    deadline = time.monotonic() + 20.0
    while not shard.insert(first).turned_away:
        assert time.monotonic() < deadline
    shard.sample(SampleRequest(np.array([1]), 5000.0, Updates(), 0.0))
    inside.join(20.0)
    assert not inside.is_alive()
