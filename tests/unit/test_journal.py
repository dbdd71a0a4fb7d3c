"""The journal of a shard: what was written comes back, what was damaged is noticed, a full disk changes nothing."""

import errno
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from replay_server.disk import OsDisk
from replay_server.errors import ConfigError, JournalError, ReplayTimeout, StorageFull
from replay_server.journal import Counters, Journal
from replay_server.messages import Stamp
from replay_server.specs import Field, RecordSpec
from replay_server.table import Checked
from replay_server.writer_marks import Standing, WriterMarks

SPEC = RecordSpec((Field("number", "int64"),))
CAPACITY = 16


class PlainTable:
    """The obvious table: slot -> (number, priority)."""

    def __init__(self):
        self.rows = {}
        self.slots = SimpleNamespace(holding=lambda: np.array(sorted(self.rows), np.int64))

    def store(self, rows, slots):
        numbers = SPEC.columns(np.ascontiguousarray(rows.records))["number"].tolist()
        for slot, number, priority in zip(slots.tolist(), numbers, rows.priorities.tolist(), strict=True):
            self.rows.pop(slot, None)
            self.rows[slot] = (number, priority)

    def remove(self, slots):
        for slot in slots.tolist():
            del self.rows[slot]

    def clear(self):
        self.rows.clear()


def checked(numbers, priorities=None):
    values = None if priorities is None else np.asarray(priorities, np.float64)
    return Checked(SPEC.pack({"number": np.asarray(numbers, np.int64)}), values)


class Side:
    """A journal with the table and marks it keeps, changed the way a shard does it."""

    def __init__(self, directory, after=0, table=None, marks=None, capacity=CAPACITY, **options):
        self.journal = Journal.open(str(directory), SPEC, 3, capacity, **options)
        self.table = table or PlainTable()
        self.marks = marks or WriterMarks()
        try:
            self.recovered = self.journal.recover(self.table, self.marks, after)
        except BaseException:
            self.journal.close()
            raise
        self.counters = self.recovered.counters or Counters()

    def insert(self, slots, numbers, stamp=None, priorities=None):
        rows, slots = checked(numbers, priorities), np.asarray(slots, np.int64)
        if stamp is not None and self.marks.standing(stamp) is Standing.OPENING:
            self.journal.open_epoch(stamp.writer_id, stamp.epoch, self.counters)
            self.marks.open(stamp.writer_id, stamp.epoch)
        counters = self.counters._replace(inserted=self.counters.inserted + len(slots))
        lsn = self.journal.insert(slots, rows, stamp, counters, priority=1.0)
        self.counters = counters
        self.table.store(rows if priorities is not None else rows._replace(priorities=np.ones(len(slots))), slots)
        if stamp is not None:
            self.marks.add(stamp)
        return lsn

    def remove(self, slots):
        self.counters = self.counters._replace(sampled=self.counters.sampled + len(slots))
        self.table.remove(np.asarray(slots))
        self.journal.remove(np.asarray(slots, np.int64), self.counters)

    def clear(self):
        self.journal.clear(self.counters)
        self.table.clear()

    def state(self):
        return list(self.table.rows.items()), self.marks.to_json(), self.counters

    def close(self):
        self.journal.check_valid()
        self.journal.close()


def recovered(directory, **options):
    """(what a journal gives back, the Recovered)."""
    side = Side(directory, **options)
    side.close()
    return side.state(), side.recovered


def segments(directory):
    return sorted(p for p in (directory / "journal").iterdir() if p.suffix == ".log")


def filled(directory, **options):
    """A journal with one of everything."""
    side = Side(directory, **options)
    side.insert([0, 1, 2], [10, 11, 12], Stamp(7, 0, 0))
    side.insert([14, 15, 3, 4], [13, 14, 15, 16], Stamp(7, 0, 1), [1.0, 2.5, 0.0, 4.0])
    side.insert([15, 0, 1], [17, 18, 19])
    side.remove([2, 14])
    side.insert([5], [20], Stamp(9, 3, 0), [0.25])
    side.insert([6], [21], Stamp(7, 2, 5))
    return side


@pytest.mark.parametrize("level", ["journal", "fsync"])
def test_everything_comes_back(tmp_path, level):
    side = filled(tmp_path, level=level)
    side.close()
    state, found = recovered(tmp_path, level=level)
    assert state == side.state()
    assert found.records == len(side.table.rows) == 7
    assert (found.truncated_bytes, found.skipped_bytes, found.damaged) == (0, 0, ())
    assert state[2] == Counters(12, 2.0, 0)


def test_a_cleared_journal_is_empty_and_goes_on(tmp_path):
    side = filled(tmp_path)
    side.clear()
    side.insert([4], [1])
    side.close()
    assert recovered(tmp_path)[0] == side.state()
    assert recovered(tmp_path)[0][0] == [(4, (1, 1.0))]


def test_an_empty_journal_gives_nothing_and_an_empty_insert_is_fine(tmp_path):
    side = Side(tmp_path)
    assert side.recovered.records == 0
    side.insert([], [], Stamp(1, 0, 0))
    side.close()
    assert recovered(tmp_path)[0] == side.state()


def test_slots_and_priorities_that_follow_a_pattern_take_no_room(tmp_path):
    side = Side(tmp_path, capacity=4096)
    side.insert([0], [0])
    sizes = []
    for slots, priorities in (
        (np.arange(1000), None),
        ((4000 + np.arange(1000)) % 4096, [2.0] * 1000),
        (np.arange(1000)[::-1], None),
        (np.arange(1000), np.arange(1000.0)),
    ):
        before = side.journal.bytes
        side.insert(slots, np.arange(1000), None, priorities)
        sizes.append(side.journal.bytes - before - 1000 * SPEC.record_size)
    assert sizes == [120, 120, 4120, 8120]
    side.close()
    assert recovered(tmp_path, capacity=4096)[0] == side.state()


def test_restarts_go_on_where_the_last_ended(tmp_path):
    expected = []
    for life in range(5):
        side = Side(tmp_path)
        assert [number for _, (number, _) in side.table.rows.items()] == expected
        side.insert([life], [life], Stamp(1, 0, life))
        expected.append(life)
        side.close()
    assert len(segments(tmp_path)) == 5


def test_a_duplicate_of_a_recovered_chunk_is_known(tmp_path):
    side = filled(tmp_path)
    side.close()
    again = Side(tmp_path)
    assert again.marks.standing(Stamp(9, 3, 0, False)) is Standing.STORED
    assert again.marks.standing(Stamp(7, 2, 4, False)) is Standing.FRESH
    again.close()


def test_two_processes_cannot_share_a_journal(tmp_path):
    side = Side(tmp_path)
    with pytest.raises(ConfigError, match="another shard is using it"):
        Journal.open(str(tmp_path), SPEC, 3, CAPACITY)
    side.close()
    Side(tmp_path).close()


def test_an_unknown_level_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'log' is unknown"):
        Journal.open(str(tmp_path), SPEC, 3, CAPACITY, "log")


# ---------------------------------------------------------------------------------------------------------- segments


@pytest.mark.parametrize("level", ["journal", "fsync"])
def test_segments_whose_records_are_all_overwritten_go_and_nothing_is_lost(tmp_path, level):
    side = Side(tmp_path, level=level, segment_bytes=600)
    for turn in range(100):
        lsn = side.insert([(3 * turn + i) % CAPACITY for i in range(3)], [turn] * 3, Stamp(turn % 4, turn // 50, turn))
        side.journal.wait_durable(lsn, 5.0)
    side.close()
    names = segments(tmp_path)
    assert 2 <= len(names) <= 6
    assert names[0].name > "0000000010.log"
    assert side.journal.bytes == sum(p.stat().st_size for p in names)
    assert recovered(tmp_path)[0] == side.state()


def test_epochs_and_marks_survive_the_deletion_of_the_segments_that_told_of_them(tmp_path):
    side = Side(tmp_path, segment_bytes=400)
    side.insert([0], [0], Stamp(77, 5, 0))
    for turn in range(100):
        side.insert([turn % CAPACITY], [turn])
    side.close()
    assert segments(tmp_path)[0].name > "0000000002.log"
    again = Side(tmp_path)
    assert again.marks.standing(Stamp(77, 5, 0, False)) is Standing.STORED
    again.close()


def test_a_queue_leaves_no_segments_behind(tmp_path):
    side = Side(tmp_path, segment_bytes=400)
    for turn in range(200):
        side.insert([turn % CAPACITY], [turn])
        side.remove([turn % CAPACITY])
    side.close()
    assert len(segments(tmp_path)) <= 3
    assert recovered(tmp_path)[0] == side.state()


def test_one_record_keeps_its_segment_and_those_after_it(tmp_path):
    side = Side(tmp_path, segment_bytes=400)
    side.insert([0], [99])
    for turn in range(60):
        side.insert([1 + turn % 4], [turn])
    assert segments(tmp_path)[0].name == "0000000001.log"
    assert side.journal.garbage_ratio > 0.75
    side.insert([0], [98])
    for turn in range(60):
        side.insert([turn % 5], [turn])
    side.close()
    assert len(segments(tmp_path)) <= 6
    assert recovered(tmp_path)[0] == side.state()


def test_the_garbage_ratio_is_the_share_of_dead_rows_also_after_a_restart(tmp_path):
    side = Side(tmp_path)
    assert side.journal.garbage_ratio == 0.0
    for slot in range(10):
        side.insert([slot], [slot])
    assert side.journal.garbage_ratio == 0.0
    for slot in range(10):
        side.insert([slot], [slot])
    side.remove([0, 1, 2, 3, 4])
    side.close()
    again = Side(tmp_path)
    for journal in (side.journal, again.journal):
        assert journal.garbage_ratio == pytest.approx(0.75)
        assert journal.bytes == segments(tmp_path)[0].stat().st_size
    again.insert([11], [11])
    again.journal.forget_before(again.journal.begin_snapshot())
    assert (again.journal.bytes, again.journal.garbage_ratio) == (0, 0.0)
    again.close()


def test_many_writers_do_not_make_a_segment_of_every_insert(tmp_path):
    side = Side(tmp_path, segment_bytes=1000)
    for writer in range(200):
        side.insert([writer % CAPACITY], [writer], Stamp(writer, 0, 0))
    newest = int(segments(tmp_path)[-1].stem)
    for turn in range(100):
        side.insert([turn % CAPACITY], [turn], Stamp(turn, 0, 1))
    assert int(segments(tmp_path)[-1].stem) <= newest + 5
    side.close()
    assert recovered(tmp_path)[0] == side.state()


def test_a_snapshot_takes_the_place_of_what_came_before(tmp_path):
    side = filled(tmp_path, segment_bytes=200)
    at = side.journal.begin_snapshot()
    table, marks = PlainTable(), WriterMarks()
    table.rows = dict(side.table.rows)
    marks.load(side.marks.to_json())
    side.insert([8], [30], Stamp(7, 2, 6))
    side.remove([3])
    side.journal.forget_before(at)
    for turn in range(20):
        side.insert([9], [31 + turn])
    side.close()
    assert min(int(p.stem) for p in segments(tmp_path)) > 1
    state, found = recovered(tmp_path, after=at, table=table, marks=marks)
    assert (dict(state[0]), state[1:]) == (dict(side.state()[0]), side.state()[1:])
    assert found.records == len(side.table.rows)
    with pytest.raises(JournalError, match="missing|bring that snapshot back"):
        recovered(tmp_path)


def test_a_removal_during_a_snapshot_outlives_its_segment(tmp_path):
    side = Side(tmp_path, segment_bytes=150)
    side.insert([0], [1])
    at = side.journal.begin_snapshot()
    rows = dict(side.table.rows)
    side.remove([0])
    for turn in range(20):
        side.insert([1], [turn])
        side.remove([1])
    side.journal.forget_before(at)
    for turn in range(20):
        side.insert([1], [turn])
        side.remove([1])
    side.close()
    table = PlainTable()
    table.rows = rows
    assert recovered(tmp_path, after=at, table=table)[0] == side.state()


def test_an_abandoned_snapshot_keeps_nothing(tmp_path):
    side = Side(tmp_path, segment_bytes=400)
    side.journal.begin_snapshot()
    for turn in range(100):
        side.insert([turn % CAPACITY], [turn])
    assert len(segments(tmp_path)) > 10
    side.journal.abandon_snapshot()
    for turn in range(100):
        side.insert([turn % CAPACITY], [turn])
    side.close()
    assert len(segments(tmp_path)) <= 10


# ------------------------------------------------------------------------------------------------------------ damage


def last_entry(directory, **options):
    """(path of the last segment, its bytes, where its last entry begins, the state without that entry)."""
    side = filled(directory, **options)
    before = side.state()
    start = side.journal.bytes
    side.insert([7, 3], [22, 23], Stamp(7, 2, 6), [3.0, 4.0])
    side.close()
    (path,) = segments(directory)
    return path, path.read_bytes(), start, before


def test_a_write_torn_at_any_byte_is_cut_off(tmp_path):
    path, data, start, before = last_entry(tmp_path)
    for length in range(start, len(data)):
        for zeros in (0, 200):
            path.write_bytes(data[:length] + bytes(zeros) if zeros and length == start else data[:length])
            state, found = recovered(tmp_path)
            assert state == before
            assert found.truncated_bytes == path.stat().st_size - start or path.stat().st_size == start
            assert path.read_bytes() == data[:start]
    path.write_bytes(data)
    assert recovered(tmp_path)[0] != before


@pytest.mark.parametrize("level", ["journal", "fsync"])
def test_a_flipped_bit_at_any_byte_is_refused_by_name(tmp_path, level):
    path, data, start, _ = last_entry(tmp_path, level=level)
    rng = np.random.default_rng(1)
    ats = range(len(data)) if level == "journal" else range(start, len(data), 3)
    for at in ats:
        if 84 <= at < 96:
            continue  # the note of what is durable, a help that is not needed
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        if start + 8 <= at < start + 16 or at >= start:
            match = rf"{path.name}: damaged at byte {start}: .* --salvage"
        else:
            match = rf"{path.name}: (damaged at byte \d+: .* --salvage|has format|belongs to)"
        with pytest.raises(JournalError, match=match):
            recovered(tmp_path, level=level)
        assert path.read_bytes() == flipped


def test_salvage_leaves_out_what_is_damaged_and_says_how_much(tmp_path):
    side = Side(tmp_path)
    starts = []
    for turn in range(10):
        starts.append(side.journal.bytes)
        side.insert([turn], [turn], Stamp(1, 0, turn))
    side.close()
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[starts[3] + 75] ^= 1  # payload
    data[starts[6] + 9] ^= 1  # header
    path.write_bytes(data)
    with pytest.raises(JournalError, match=f"0000000001.log: damaged at byte {starts[3]}"):
        recovered(tmp_path)
    side = Side(tmp_path, salvage=True)
    assert [slot for slot, _ in side.table.rows.items()] == [0, 1, 2, 4, 5, 7, 8, 9]
    assert side.recovered.skipped_entries == 2
    assert side.recovered.skipped_bytes == 2 * (starts[4] - starts[3])
    assert side.recovered.damaged == ("0000000001.log",)
    side.insert([3], [33])
    at = side.journal.begin_snapshot()
    side.journal.forget_before(at)
    while side.journal.collect():
        pass
    side.close()
    assert (tmp_path / "journal" / "0000000001.log.damaged").read_bytes() == data
    again = Side(tmp_path, after=at, table=side.table, marks=side.marks)
    assert again.state()[:2] == side.state()[:2]
    assert again.recovered.counters is None
    again.close()


def test_salvage_survives_any_damage_at_all(tmp_path):
    path, data, _, _ = last_entry(tmp_path)
    seed = int(np.random.default_rng().integers(2**32))
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at, length = int(rng.integers(96, len(data))), int(rng.integers(1, 120))
            damaged[at : at + length] = rng.bytes(min(length, len(damaged) - at))
        path.write_bytes(damaged)
        (rows, _, _), found = recovered(tmp_path, salvage=True)
        assert {number for _, (number, _) in rows} <= set(range(10, 24))
        assert found.skipped_bytes + found.truncated_bytes > 0
        for made in segments(tmp_path)[1:]:
            made.unlink()


def test_a_missing_segment_is_refused(tmp_path):
    side = Side(tmp_path, segment_bytes=300)
    for turn in range(CAPACITY):
        side.insert([turn], [turn])
    side.close()
    names = segments(tmp_path)
    kept = {p: p.read_bytes() for p in names}
    names[1].unlink()
    with pytest.raises(JournalError, match="0000000002.log: missing"):
        recovered(tmp_path)
    (_, _, _), found = recovered(tmp_path, salvage=True)
    assert found.records < CAPACITY
    assert found.skipped_entries > 0
    names[1].write_bytes(kept[names[1]])
    names[0].unlink()
    with pytest.raises(JournalError, match="its first segments or the snapshot"):
        recovered(tmp_path)
    names[0].write_bytes(kept[names[0]])
    names[2].write_bytes(kept[names[2]][:-40])
    with pytest.raises(JournalError, match="0000000003.log: damaged .* ends inside an entry"):
        recovered(tmp_path)


def test_journals_of_something_else_are_refused(tmp_path):
    filled(tmp_path).close()
    other = RecordSpec((Field("number", "int64"),), {"gamma": "0.9"})
    for spec, shard, capacity, match in (
        (other, 3, CAPACITY, "0000000001.log: holds records of another spec"),
        (SPEC, 4, CAPACITY, "belongs to shard 3, this is shard 4"),
        (SPEC, 3, CAPACITY - 1, "capacity 16, more than the 15"),
    ):
        journal = Journal.open(str(tmp_path), spec, shard, capacity)
        with pytest.raises(JournalError, match=match):
            journal.recover(PlainTable(), WriterMarks())
        journal.close()
    path = segments(tmp_path)[0]
    path.rename(path.with_name("0000000002.log"))
    with pytest.raises(JournalError, match="is segment 1 under another one's name"):
        recovered(tmp_path)


def test_a_larger_capacity_reads_a_smaller_ones_journal(tmp_path):
    side = filled(tmp_path)
    side.insert([14, 15, 0], [1, 2, 3])
    side.close()
    assert recovered(tmp_path, capacity=100)[0] == side.state()


def test_after_a_power_loss_only_what_was_waited_for_has_to_be_whole(tmp_path):
    side = filled(tmp_path, level="fsync")
    side.journal.wait_durable(side.journal.position, 5.0)
    before, start = side.state(), side.journal.bytes
    side.insert([7], [22])
    side.insert([8], [23])
    path = segments(tmp_path)[0]
    data = path.read_bytes()  # as the disk may be while nobody has waited for the last two
    side.close()
    middle = start + (len(data) - start) // 2
    for at in range(start, middle):
        zeroed = data[:at] + bytes(middle - at) + data[middle:]
        if zeroed == data:
            break
        path.write_bytes(zeroed)
        state, found = recovered(tmp_path, level="fsync")
        assert state == before
        assert found.truncated_bytes == len(data) - start
    path.write_bytes(data[: start - 1])
    with pytest.raises(JournalError, match="damaged at byte"):
        recovered(tmp_path, level="fsync")


# --------------------------------------------------------------------------------------------------------- full disk


class FaultyDisk(OsDisk):
    """Fails calls named in `failing` (all of them from the `after`-th on until it is emptied), or writes short."""

    def __init__(self):
        self.failing = set()
        self.after = 0
        self.short = False
        self.code = errno.ENOSPC

    def _step(self, name):
        if name in self.failing:
            self.after -= 1
            if self.after < 0:
                raise OSError(self.code, os.strerror(self.code))

    def open(self, path):
        self._step("open")
        return super().open(path)

    def write(self, handle, offset, parts):
        if self.short and "write" in self.failing:  # the disk takes a part of it and then nothing more
            self.short = False
            data = b"".join(bytes(p) if isinstance(p, bytes) else p.tobytes() for p in parts)
            return super().write(handle, offset, [data[: len(data) // 2]])
        self._step("write")
        return super().write(handle, offset, parts)

    def truncate(self, handle, length):
        self._step("truncate")
        super().truncate(handle, length)

    def fsync(self, handle):
        self._step("fsync")
        super().fsync(handle)

    def rename(self, old, new):
        self._step("rename")
        super().rename(old, new)

    def fsync_dir(self, directory):
        self._step("fsync_dir")
        super().fsync_dir(directory)

    def unlink(self, path):
        self._step("unlink")
        super().unlink(path)


@pytest.mark.parametrize("segment_bytes", [150, 10_000])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_refuses_inserts_and_lets_them_go_on_when_there_is_room(tmp_path, segment_bytes, code, short):
    disk = FaultyDisk()
    side = filled(tmp_path, disk=disk, segment_bytes=segment_bytes)
    before, size = side.state(), side.journal.bytes
    for _ in range(3):
        disk.failing, disk.short, disk.code = {"write"}, short, code
        with pytest.raises(StorageFull, match="nothing was stored"):
            side.insert([7], [22], Stamp(7, 2, 6))
        assert side.state() == before
        assert side.journal.bytes == size
    copy = tmp_path / "copy" / "journal"
    copy.mkdir(parents=True)
    for p in segments(tmp_path):
        (copy / p.name).write_bytes(p.read_bytes())
    assert recovered(tmp_path / "copy")[0] == before
    disk.failing = set()
    side.insert([7], [22], Stamp(7, 2, 6))
    side.close()
    assert recovered(tmp_path)[0] == side.state()


def test_a_removal_that_cannot_be_written_is_written_later(tmp_path):
    disk = FaultyDisk()
    side = filled(tmp_path, disk=disk)
    disk.failing = {"write"}
    side.remove([0, 1])
    side.remove([5])
    assert side.journal.pending_removals == 3
    with pytest.raises(StorageFull):
        side.insert([0], [50])
    with pytest.raises(StorageFull):
        side.clear()
    disk.failing = set()
    side.insert([0], [50])
    assert side.journal.pending_removals == 0
    side.close()
    assert recovered(tmp_path)[0] == side.state()


def test_a_write_that_cannot_be_cut_off_stops_inserts_until_it_can(tmp_path):
    disk = FaultyDisk()
    side = filled(tmp_path, disk=disk, segment_bytes=2500)
    for _ in range(40):
        disk.failing, disk.short = {"write", "truncate"}, True
        for _ in range(2):
            with pytest.raises((JournalError, StorageFull), match="cannot be cut off|cannot be written"):
                side.insert([7], [22])
            disk.failing = {"truncate"}
        disk.failing = set()
        side.insert([8], [23])
    side.close()
    assert recovered(tmp_path)[0] == side.state()


@pytest.mark.parametrize("call", ["open", "write", "truncate", "fsync", "rename", "fsync_dir"])
@pytest.mark.parametrize("level", ["journal", "fsync"])
@pytest.mark.parametrize("segment_bytes", [150, 1000])
def test_a_failure_at_any_call_loses_nothing_acknowledged(tmp_path, call, level, segment_bytes):
    acknowledged, possible, at = {}, {}, 0
    for at in range(12):
        directory = tmp_path / str(at)
        disk = FaultyDisk()
        side = Side(directory, disk=disk, level=level, segment_bytes=segment_bytes)
        acknowledged, possible = {}, {}
        disk.failing, disk.after = {call}, at
        for number in range(20):
            slot = number % 8
            if number == 12:
                disk.failing = set()
            try:
                possible.setdefault(slot, set()).add(number)
                side.journal.wait_durable(side.insert([slot], [number]), 5.0)
                acknowledged[slot] = number
            except (StorageFull, JournalError):
                pass
        side.journal.close()
        (rows, _, _), _ = recovered(directory, level=level)
        found = {slot: number for slot, (number, _) in rows}
        for slot, number in acknowledged.items():
            assert found[slot] == number or found[slot] in {n for n in possible[slot] if n > number}
        if call in ("open", "write", "rename") or (call == "truncate" and segment_bytes > 500) or level == "journal":
            assert found == {slot: 12 + (slot - 4) % 8 for slot in range(8)}  # it went on when it could


def test_a_failed_fsync_is_never_tried_again(tmp_path):
    disk = FaultyDisk()
    side = filled(tmp_path, disk=disk, level="fsync")
    disk.failing, disk.code = {"fsync"}, errno.EIO
    lsn = side.insert([7], [22])
    with pytest.raises(JournalError, match="failed to write back: Input/output error"):
        side.journal.wait_durable(lsn, 5.0)
    disk.failing = set()
    for _ in range(2):
        with pytest.raises(JournalError, match="restart this shard"):
            side.insert([8], [23])
        with pytest.raises(JournalError, match="restart this shard"):
            side.journal.wait_durable(lsn, 5.0)
    side.remove([0])
    side.close()
    recovered(tmp_path, level="fsync")


class SlowDisk(OsDisk):
    """An fsync returns when `go` is set; counts them."""

    def __init__(self):
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.syncs = 0

    def fsync(self, handle):
        self.syncs += 1
        self.begun.set()
        assert self.go.wait(10)
        super().fsync(handle)


def test_one_fsync_serves_all_who_wait(tmp_path):
    disk = SlowDisk()
    side = Side(tmp_path, disk=disk, level="fsync")
    first = side.insert([0], [0])
    disk.begun.clear()
    disk.go.clear()
    before = disk.syncs
    threads = [threading.Thread(target=side.journal.wait_durable, args=(first, 10.0))]
    threads[0].start()
    assert disk.begun.wait(10)
    for number in range(1, 9):
        threads.append(threading.Thread(target=side.journal.wait_durable, args=(side.insert([number], [1]), 10.0)))
        threads[-1].start()
    with pytest.raises(ReplayTimeout, match="did not write back") as caught:
        side.journal.wait_durable(side.journal.position, 0.01)
    assert caught.value.blocked_on == "disk"
    disk.go.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert disk.syncs - before <= 3
    side.close()
