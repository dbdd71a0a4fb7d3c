"""A shard with a journal: what it acknowledged is there after it was killed."""

import errno
import queue
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from replay_server import CheckpointError, ConfigError, Field, RateLimiter, RecordSpec, StaleEpoch
from replay_server.compaction import Compactor
from replay_server.disk import OsDisk
from replay_server.errors import JournalError, StorageFull, WriterEvicted
from replay_server.journal import Journal
from replay_server.messages import InsertRequest, SampleRequest, Stamp, UpdateRequest, Updates
from replay_server.shard import Shard
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"),))
_LIVES = iter(range(1, 1_000_000))


class FullDisk(OsDisk):
    """Takes nothing while `full`."""

    full = False

    def write(self, handle, offset, parts):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(handle, offset, parts)


class Lives:
    """One life of a shard after another over the same directory; ends them as SIGKILL would, without a word."""

    def __init__(self, directory, **settings):
        self.directory, self.settings = directory, settings
        self.disk = FullDisk()
        self.shard = None
        self.recovered = None

    def start(self, limiter=None, **journal):
        self.kill()
        table = Table(SPEC, **{"capacity": 64, **self.settings}, incarnation=next(_LIVES))
        opened = Journal.open(str(self.directory), SPEC, 0, table.capacity, disk=self.disk, **journal)
        self.shard = Shard(table, limiter, journal=opened)
        try:
            self.recovered = self.shard.recover()
        except JournalError:
            self.kill()
            raise
        return self.shard

    def kill(self):
        if self.shard is not None:
            self.shard.close()  # lets go of the directory's lock; everything acknowledged was written before
            self.shard = None


@pytest.fixture
def lives(tmp_path) -> Iterator[Lives]:
    made = Lives(tmp_path)
    yield made
    made.kill()


def chunk(numbers, stamp=None, priorities=None, wait_s=0.0):
    return InsertRequest(SPEC.pack({"number": np.asarray(numbers, np.int64)}), priorities, stamp, wait_s)


def ask(rows, wait_s=0.0):
    return SampleRequest(np.array([rows]), float(rows), Updates(), wait_s)


def numbers_of(shard):
    state = shard.table.slots.order()
    return SPEC.columns(shard.table.records[state])["number"].tolist()


@pytest.mark.parametrize("level", ["journal", "fsync"])
def test_acknowledged_records_counters_and_writers_survive(lives, level):
    shard = lives.start(level=level)
    assert shard.durability == shard.stats().level == level
    shard.insert(chunk([1, 2], Stamp(7, 0, 0)))
    shard.insert(chunk([3], Stamp(7, 0, 1, opens=False), priorities=np.array([5.0])))
    shard.insert(chunk([4]))
    shard.sample(ask(3))
    shard.insert(chunk([5], Stamp(7, 0, 2, opens=False)))
    again = lives.start(level=level)
    assert numbers_of(again) == [1, 2, 3, 4, 5]
    assert again.table.priorities[:5].tolist() == [1.0, 1.0, 5.0, 5.0, 5.0]
    assert (again.stats().inserted, again.stats().sampled) == (5, 3.0)
    reply = again.insert(chunk([3], Stamp(7, 0, 1, opens=False)))
    assert (reply.accepted, reply.duplicates) == (0, 1)
    assert again.insert(chunk([6], Stamp(7, 0, 3, opens=False))).accepted == 1
    again.check_valid()


def test_an_epoch_once_opened_fences_the_older_one_in_the_next_life_too(lives):
    shard = lives.start(RateLimiter(1, 1.0, 1.0))
    shard.insert(chunk([1, 2, 3], Stamp(7, 0, 0)))
    assert shard.insert(chunk([4], Stamp(7, 1, 0))).blocked_on == "samples"  # not stored, yet its epoch is open
    again = lives.start(RateLimiter(1, 1.0, 1.0))
    with pytest.raises(StaleEpoch):
        again.insert(chunk([5], Stamp(7, 0, 1, opens=False)))
    with pytest.raises(WriterEvicted):
        again.insert(chunk([5], Stamp(8, 0, 1, opens=False)))


@pytest.mark.parametrize("sampler", ["fifo", "lifo", "stratified"])
def test_records_consumed_by_sampling_stay_away(lives, sampler):
    lives.settings = {"sampler": sampler, "max_times_sampled": 1}
    shard = lives.start()
    shard.insert(chunk(range(10)))
    drawn = set(SPEC.columns(shard.sample(ask(4)).records)["number"].tolist())
    again = lives.start()
    assert sorted(numbers_of(again)) == sorted(set(range(10)) - drawn)
    assert again.table.draws_left == 6


def test_a_clear_stays_cleared_and_a_ring_keeps_its_newest(lives):
    shard = lives.start()
    shard.insert(chunk(range(40)))
    shard.clear()
    for start in range(0, 200, 7):
        shard.insert(chunk(range(start, start + 7)))
    newest = numbers_of(shard)
    assert numbers_of(lives.start()) == newest


def test_a_full_disk_refuses_inserts_and_changes_nothing_while_sampling_goes_on(lives):
    shard = lives.start()
    shard.insert(chunk([1, 2], Stamp(7, 0, 0)))
    lives.disk.full = True
    for stamp in (Stamp(7, 0, 1), Stamp(7, 1, 0), Stamp(9, 0, 0), None):
        with pytest.raises(StorageFull):
            shard.insert(chunk([3], stamp))
    with pytest.raises(StorageFull):
        shard.clear()
    assert numbers_of(shard) == [1, 2]
    assert len(shard.sample(ask(5)).records) == 5
    keys = shard.sample(ask(1)).keys
    shard.update(UpdateRequest(Updates(keys, np.array([2.0]))))
    lives.disk.full = False
    assert shard.insert(chunk([3], Stamp(7, 0, 1))).accepted == 1  # the refused epoch 1 was never opened
    assert numbers_of(lives.start()) == [1, 2, 3]


def test_a_compacted_journal_gives_back_the_same_and_the_last_priorities(lives):
    lives.settings = {"capacity": 5000, "remover": "lowest_priority"}
    shard = lives.start(segment_bytes=1 << 12)
    for start in range(0, 6000, 100):
        shard.insert(chunk(range(start, start + 100), Stamp(7, 0, start // 100), priorities=np.linspace(1, 2, 100)))
    keys = shard.sample(ask(50)).keys
    shard.update(UpdateRequest(Updates(keys, np.full(50, 9.0))))
    before = sum(f.stat().st_size for f in (lives.directory / "journal").iterdir())
    shard.compact()
    after = sum(f.stat().st_size for f in (lives.directory / "journal").iterdir())
    assert after < before / 4
    shard.insert(chunk(range(6000, 6100), Stamp(7, 0, 60)))
    expected, priorities = numbers_of(shard), shard.table.priorities.copy()
    again = lives.start(segment_bytes=1 << 12)
    assert numbers_of(again) == expected
    np.testing.assert_array_equal(again.table.priorities, priorities)
    assert again.insert(chunk([1], Stamp(7, 0, 60, opens=False))).duplicates == 1
    assert again.stats().inserted == 6100
    again.check_valid()


def test_what_is_inserted_while_it_compacts_is_in_the_journal(lives):
    lives.settings = {"capacity": 200_000}
    shard = lives.start()
    shard.insert(chunk(range(150_000)))
    stop, stored = threading.Event(), []

    def insert():
        sequence = 0
        while not stop.is_set():
            shard.insert(chunk([1_000_000 + sequence], Stamp(3, 0, sequence), wait_s=1.0))
            stored.append(1_000_000 + sequence)
            sequence += 1
            time.sleep(0.001)

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        for _ in range(3):
            shard.compact()
    finally:
        stop.set()
        thread.join(10)
    again = lives.start()
    assert numbers_of(again) == [*range(150_000), *stored]
    again.check_valid()


def test_a_journal_that_holds_data_is_not_mixed_with_a_checkpoint(lives, tmp_path):
    shard = lives.start()
    shard.insert(chunk([1]))
    shard.save(str(tmp_path / "elsewhere.h5"))
    again = lives.start()
    with pytest.raises(ConfigError, match="holds data already"):
        again.restore(str(tmp_path / "elsewhere.h5"))
    assert numbers_of(again) == [1]


def test_a_shard_restored_from_a_checkpoint_journals_from_there(tmp_path):
    first = Shard(Table(SPEC, 64, incarnation=next(_LIVES)))
    first.insert(chunk([1, 2], Stamp(7, 0, 0)))
    first.save(str(tmp_path / "saved.h5"))
    lives = Lives(tmp_path / "own")
    shard = lives.start()
    shard.restore(str(tmp_path / "saved.h5"))
    shard.insert(chunk([3], Stamp(7, 0, 1, opens=False)))
    assert numbers_of(lives.start()) == [1, 2, 3]
    lives.kill()


@pytest.mark.parametrize("level", ["journal", "fsync"])
@pytest.mark.parametrize("step", ["os.open", "replay_server.snapshot.create", "os.replace", "os.fsync", None])
def test_a_restore_that_ended_at_any_step_can_be_begun_again(tmp_path, monkeypatch, level, step):
    first = Shard(Table(SPEC, 64, incarnation=next(_LIVES)))
    first.insert(chunk([1, 2], Stamp(7, 0, 0)))
    first.save(str(tmp_path / "saved.h5"))
    lives = Lives(tmp_path / "own")
    shard = lives.start(level=level)
    with monkeypatch.context() as patch:
        if step is not None:
            patch.setattr(step, raising(OSError(errno.ENOSPC, "No space left on device")))
        else:  # the base is there, and nothing after it
            patch.setattr(Journal, "forget_before", raising(OSError("killed")))
        with pytest.raises((CheckpointError, OSError)):
            shard.restore(str(tmp_path / "saved.h5"))
    shard = lives.start(level=level)
    if step is not None:
        assert shard.stats().size == 0
        shard.restore(str(tmp_path / "saved.h5"))
    assert shard.insert(chunk([1, 2], Stamp(7, 0, 0))).duplicates == 2
    assert shard.insert(chunk([3], Stamp(7, 0, 1, opens=False))).accepted == 1
    again = lives.start(level=level)
    assert numbers_of(again) == [1, 2, 3]
    again.check_valid()
    lives.kill()


def test_an_insert_the_disk_does_not_confirm_is_unknown_and_settled_by_sending_it_again(lives, monkeypatch):
    monkeypatch.setattr("replay_server.shard._DURABLE_S", 0.05)
    shard = lives.start(level="fsync")
    shard.insert(chunk([1], Stamp(7, 0, 0)))
    go = threading.Event()
    monkeypatch.setattr(lives.disk, "fsync", lambda handle: go.wait(10))
    assert shard.insert(chunk([2], Stamp(7, 0, 1))).blocked_on == "disk"
    go.set()
    assert shard.insert(chunk([2], Stamp(7, 0, 1))).duplicates == 1
    assert numbers_of(shard) == [1, 2]


def test_a_slow_disk_holds_no_more_inserts_than_a_limiter_would(lives, monkeypatch):
    shard = lives.start(level="fsync")
    shard.insert(chunk([0], Stamp(7, 0, 0)))
    go, replies = threading.Event(), queue.SimpleQueue()
    monkeypatch.setattr(lives.disk, "fsync", lambda handle: go.wait(10))
    threads = [
        threading.Thread(target=lambda i=i: replies.put(shard.insert(chunk([i], Stamp(7, 0, i, opens=False)))))
        for i in range(1, 21)
    ]
    for thread in threads:
        thread.start()
    refused = [replies.get(timeout=5.0) for _ in range(20 - 12)]  # these at once, while the disk still writes
    assert {reply.blocked_on for reply in refused} == {"disk"}
    assert shard.stats().size == 1 + 12 and len(shard.sample(ask(4)).records) == 4
    go.set()
    for thread in threads:
        thread.join(5)
    assert [replies.get(timeout=5.0).accepted for _ in range(12)] == [1] * 12
    assert shard.insert(chunk([30], Stamp(7, 0, 30, opens=False))).accepted == 1


def test_a_journal_whose_disk_failed_says_so(lives, monkeypatch):
    def broken(handle):
        raise OSError(errno.EIO, "Input/output error")

    shard = lives.start(level="fsync")
    shard.insert(chunk([0]))
    assert not shard.failed and shard.stats().journal.trouble is None
    monkeypatch.setattr(lives.disk, "fsync", broken)
    with pytest.raises(JournalError):
        shard.insert(chunk([1]))
    assert shard.failed and "Input/output error; find out why, then restart" in shard.stats().journal.trouble


def test_a_journal_that_cannot_be_shortened_says_why_until_it_can(lives, monkeypatch):
    shard = lives.start()
    shard.insert(chunk([0]))
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("replay_server.shard.write_snapshot", raising(MemoryError()))
        shard.compact()
    assert shard.stats().journal.trouble == "cannot be shortened: MemoryError"
    shard.compact()
    assert shard.stats().journal.trouble is None
    shard.stop_saving()
    with pytest.raises(CheckpointError, match="stopping"):
        shard.compact()


def test_the_thread_that_shortens_journals_outlives_any_error_and_reports_a_dead_journal(lives, monkeypatch):
    for name in ("_CHECK_S", "_PAUSE_S"):
        monkeypatch.setattr(f"replay_server.compaction.{name}", 0.01)
    shard, tried, reported = lives.start(), threading.Semaphore(0), threading.Event()

    def compact():
        tried.release()
        raise MemoryError

    monkeypatch.setattr(shard, "journal_is_mostly_dead", lambda *_: True)
    monkeypatch.setattr(shard, "compact", compact)
    compactor = Compactor(shard, reported.set)
    try:
        assert all(tried.acquire(timeout=5.0) for _ in range(3)) and not reported.is_set()
        monkeypatch.setattr(Shard, "failed", True)
        assert reported.wait(5.0)
    finally:
        compactor.stop()


def raising(error):
    def call(*_):
        raise error

    return call


def test_records_of_a_restored_checkpoint_can_be_consumed_and_overwritten(tmp_path):
    first = Shard(Table(SPEC, 8, sampler="fifo", max_times_sampled=1, incarnation=next(_LIVES)))
    first.insert(chunk(range(8)))
    first.save(str(tmp_path / "saved.h5"))
    lives = Lives(tmp_path / "own", capacity=8, sampler="fifo", max_times_sampled=1)
    shard = lives.start()
    shard.restore(str(tmp_path / "saved.h5"))
    shard.sample(ask(3))
    assert numbers_of(lives.start()) == [3, 4, 5, 6, 7]
    lives.shard.insert(chunk(range(10, 15)))
    assert numbers_of(lives.start()) == [3, 4, 5, 6, 7, 10, 11, 12, 13, 14][-8:]
    assert lives.shard.stats().inserted == 13
    lives.kill()


def test_counters_of_the_base_snapshot_survive_a_segment_that_was_only_begun(lives, monkeypatch):
    shard = lives.start()
    shard.insert(chunk(range(10), Stamp(7, 0, 0)))
    shard.compact()
    shard = lives.start()
    assert shard.stats().inserted == 10
    write, fails = lives.disk.write, iter([False, True])

    def full_behind_the_state(handle, offset, parts):
        if next(fails):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, offset, parts)

    with monkeypatch.context() as patch:
        patch.setattr(lives.disk, "write", full_behind_the_state)
        with pytest.raises(StorageFull):
            shard.insert(chunk([1]))
    assert lives.start().stats().inserted == 10


def test_damage_salvaged_once_is_not_met_again(lives):
    shard = lives.start()
    for sequence in range(5):
        shard.insert(chunk([sequence], Stamp(7, 0, sequence)))
    lives.kill()
    (segment,) = (lives.directory / "journal").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalError, match=rf"{segment.name}: damaged at byte \d+: .*--salvage"):
        lives.start()
    shard = lives.start(salvage=True)
    assert lives.recovered.skipped_entries == 1 and lives.recovered.skipped_bytes > 0
    left = numbers_of(shard)
    assert len(left) == 4
    assert segment.with_suffix(".log.damaged").read_bytes() == data
    shard = lives.start()
    assert numbers_of(shard) == left
    shard.insert(chunk([9]))
    assert numbers_of(lives.start()) == [*left, 9]


def test_missing_first_segments_salvaged_once_are_not_missed_again(lives):
    shard = lives.start(segment_bytes=500)
    for sequence in range(30):
        shard.insert(chunk([sequence]))
    lives.kill()
    min((lives.directory / "journal").glob("*.log")).unlink()
    with pytest.raises(JournalError, match="its first segments or the snapshot they continue are missing"):
        lives.start()
    left = numbers_of(lives.start(salvage=True))
    assert left == list(range(30 - len(left), 30))
    assert numbers_of(lives.start()) == left
