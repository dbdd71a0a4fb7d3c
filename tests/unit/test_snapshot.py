"""A shard's snapshot: byte for byte, nothing but its own, and the old file stays until the new one is whole."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest

from replay_server import CheckpointError, Field, RateLimiter, RecordSpec
from replay_server.capture import BLOCK_BYTES, Capture
from replay_server.messages import InsertRequest, SampleRequest, Stamp, Updates
from replay_server.replay import SnapshotStats
from replay_server.shard import Shard
from replay_server.snapshot import Rests, ShardMeta, read_snapshot, write_snapshot
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"), Field("image", "uint8", (3, 2)), Field("flag", "bool")), {"gamma": "0.9"})
META = ShardMeta(inserted=70, sampled=12.5, fenced=3, writers=[[5, 2, 1, "a"]], position=2**40)


def rows(count, start=0):
    numbers = start + np.arange(count)
    return SPEC.pack(
        {"number": numbers, "image": (numbers[:, None, None] + np.zeros((3, 2))).astype(np.uint8), "flag": numbers > 2}
    )


def table_of(capacity=10, incarnation=1, spec=SPEC, seed=3, **options):
    return Table(spec, capacity, seed=seed, incarnation=incarnation, **options)


def lived_in(seed, **options):
    """A table that much has happened to."""
    table = table_of(seed=seed, **options)
    rng = np.random.default_rng(seed)
    for step in range(25):
        count = int(rng.integers(1, table.capacity // 2))
        table.insert(rows(count, 100 * step), rng.integers(0, 4, count) / 2)
        if table.mass > 0.0 and (count := min(count, int(min(table.draws_left, 99)))):
            table.update_priorities(table.sample([count]).keys, rng.random(count))
        if rng.random() < 0.3:
            table.remove(rng.choice(table.slots.order(), min(table.size, 3)))
        if rng.random() < 0.1:
            table.clear()
    table.insert(rows(3, 9000), np.ones(3))
    table.remove(table.slots.order()[:1])
    return table


def save(table, path, meta=META):
    capture = Capture(table, 4)
    capture.begin()
    try:
        write_snapshot(str(path), capture, threading.Condition(), meta)
    finally:
        capture.end()


def everything(table):
    """All of a table but the counts of draws of free slots, which mean nothing."""
    state = table.export_state()
    parts = [state.order, state.free, state.priorities, state.generations, table.records[state.order]]
    if state.times_sampled is not None:
        parts.append(state.times_sampled[state.order])
    return [part.tobytes() for part in parts], dict(state.rng)


@pytest.mark.parametrize("seed", range(16))
def test_restored_byte_for_byte_with_the_same_draws(tmp_path, seed):
    print(f"seed {seed}")
    options = {
        "sampler": ["stratified", "multinomial", "uniform", "fifo", "lifo"][seed % 5],
        "remover": ["fifo", "lowest_priority"][seed % 2],
        "max_times_sampled": [None, 3][seed // 2 % 2],
        "capacity": 7 + seed,
    }
    table = lived_in(seed, **options)
    save(table, tmp_path / "a.h5")
    other = table_of(incarnation=99, **options)
    assert read_snapshot(str(tmp_path / "a.h5"), other, keep_incarnation=True) == META
    other.check_valid()
    assert everything(other) == everything(table)
    assert other.incarnation == table.incarnation
    for step in range(6):
        assert table.draws_left == other.draws_left
        count = int(min(table.draws_left, 3))
        ours, theirs = table.sample([count]), other.sample([count])
        for one, two in zip(ours, theirs, strict=True):
            assert one.tobytes() == two.tobytes()
        for each in (table, other):
            each.insert(rows(2, step), np.ones(2))
    assert everything(other) == everything(table)


def test_bytes_between_the_fields_survive(tmp_path):
    mask = np.full(SPEC.record_size, 7, np.uint8)
    for field in SPEC.fields:
        offset = SPEC.record_dtype.fields[field.name][1]
        mask[offset : offset + field.size] = 0
    assert mask.any()
    table = table_of()
    table.insert(rows(9) | mask)
    save(table, tmp_path / "a.h5")
    other = table_of(incarnation=2)
    read_snapshot(str(tmp_path / "a.h5"), other)
    assert (other.records[:9] & mask == mask).all()
    assert everything(other) == everything(table)


def test_saving_twice_gives_the_same_file_and_leaves_nothing_else(tmp_path):
    table = lived_in(1)
    for name in ("a.h5", "b.h5", "a.h5"):
        save(table, tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_whoever_reads_the_old_file_goes_on_reading_it(tmp_path):
    save(lived_in(1), tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    with open(tmp_path / "a.h5", "rb") as reader:
        save(lived_in(2), tmp_path / "a.h5")
        assert reader.read() == before != (tmp_path / "a.h5").read_bytes()


def test_a_disk_that_gets_full_leaves_the_old_file_and_a_shard_that_goes_on(tmp_path, monkeypatch):
    shard = shard_of()
    shard.insert(InsertRequest(rows(9), None, None, 0.0))
    shard.save(str(tmp_path / "a.h5"))
    before = (tmp_path / "a.h5").read_bytes()
    pwrite, left = os.pwrite, [4]

    def full(descriptor, data, offset):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data[: len(data) // 2 + 1], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(CheckpointError, match="cannot write the snapshot.*No space left"):
        shard.save(str(tmp_path / "a.h5"))
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    assert shard.insert(InsertRequest(rows(10), None, None, 0.0)).accepted == 10
    left[0] = 10**9
    shard.save(str(tmp_path / "a.h5"))
    other = shard_of(incarnation=2)
    other.restore(str(tmp_path / "a.h5"))
    assert everything(other.table) == everything(shard.table)


def test_leftovers_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    names = [f".a.h5.{2**22 + 1}.tmp", ".a.h5.1.tmp", f".b.h5.{2**22 + 1}.tmp", ".a.h5.x.tmp"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    save(table_of(), tmp_path / "a.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names[1:], "a.h5"])


def test_keys_from_before_a_restore_are_stale_unless_the_life_goes_on(tmp_path):
    table = lived_in(4)
    keys = table.sample([6]).keys
    save(table, tmp_path / "a.h5")
    other = table_of(incarnation=2)
    read_snapshot(str(tmp_path / "a.h5"), other)
    assert other.incarnation == 2
    assert other.update_priorities(keys, np.full(6, 50.0)) == (0, 6)
    same = table_of(incarnation=1)
    with pytest.raises(CheckpointError, match="incarnation 1, give this shard a new one"):
        read_snapshot(str(tmp_path / "a.h5"), same)
    assert same.size == 0
    read_snapshot(str(tmp_path / "a.h5"), same, keep_incarnation=True)
    assert same.update_priorities(keys, np.full(6, 50.0)) == (6, 0)


def test_other_programs_can_read_it(tmp_path):
    table = lived_in(2, max_times_sampled=9)
    save(table, tmp_path / "a.h5")
    order = table.slots.order()
    columns = SPEC.columns(table.records[order])
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("number", "image", "flag"):
            np.testing.assert_array_equal(file["columns"][name][()], columns[name])
        np.testing.assert_array_equal(file["priorities"][()], table.priorities[order])
        np.testing.assert_array_equal(file["keys"]["slot"], order)
        np.testing.assert_array_equal(file["keys"]["generation"], table.slots.generations[order])
        np.testing.assert_array_equal(file["times_sampled"][()], table.times_sampled[order])
        assert RecordSpec.from_json(file["spec"].asstr()[()]) == SPEC
        assert file.attrs["inserted"] == 70 and file.attrs["sampler"] == "stratified"


def test_the_document_names_everything_in_a_file_and_its_program_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs" / "snapshots.md").read_text()
    table = lived_in(2, max_times_sampled=9)
    save(table, tmp_path / "replay-0.h5")
    with h5py.File(tmp_path / "replay-0.h5") as file:
        for name in [*file, *file.attrs]:
            assert name == "columns" or f"`{name}`" in text, name
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert capsys.readouterr().out == f"{table.size} of 70 records, gamma 0.9\n"
    np.testing.assert_array_equal(names["newest"]["number"], SPEC.columns(table.records[table.slots.order()])["number"])


def test_records_and_slots_never_used_are_not_written(tmp_path):
    table = table_of(capacity=500_000)
    table.insert(rows(3))
    save(table, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").stat().st_size < 100_000
    other = table_of(capacity=500_000, incarnation=2)
    read_snapshot(str(tmp_path / "a.h5"), other)
    assert everything(other) == everything(table)


def other_fields(*fields):
    return RecordSpec(fields, SPEC.semantics)


def test_a_shard_may_grow_and_draw_and_remove_otherwise_than_the_one_saved(tmp_path):
    saved = table_of()
    saved.insert(SPEC.pack({f.name: np.zeros((10, *f.shape), f.numpy_dtype) for f in SPEC.fields}), np.arange(10.0))
    save(saved, tmp_path / "a.h5")
    other = table_of(25, 2, priority_exponent=1.0, sampler="multinomial", remover="lowest_priority")
    read_snapshot(str(tmp_path / "a.h5"), other)
    other.check_valid()
    assert (other.size, other.mass) == (10, 45.0)
    other.insert(other.records[:17].copy(), np.full(17, 20.0))
    other.check_valid()
    assert sorted(other.priorities.tolist())[:8] == [*range(2, 10)]
    assert other.size == 25 and set(other.sample([500]).keys["slot"]) <= set(range(25))


def test_no_others_may_read_a_snapshot(tmp_path):
    save(lived_in(1), tmp_path / "a.h5")
    assert (tmp_path / "a.h5").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capacity": 9}, ["capacity 10", "has 9"]),
        ({"shard": 1}, ["shard 0", "has 1"]),
        ({"max_times_sampled": 5}, ["max_times_sampled 0", "has 5"]),
        ({"spec": RecordSpec(SPEC.fields, {"gamma": "0.8"})}, ["record spec", "gamma is '0.9'", "has '0.8'"]),
        ({"spec": RecordSpec(SPEC.fields, {"gamma": "0.9", "n": "1"})}, ["n is None", "has '1'"]),
        ({"spec": other_fields(Field("number", "int32"), *SPEC.fields[1:])}, ["int64", "int32"]),
        ({"spec": other_fields(*SPEC.fields[:2])}, ["3 fields", "has 2"]),
    ],
)
def test_a_snapshot_of_another_kind_is_refused_with_both_values(tmp_path, options, words):
    save(lived_in(1), tmp_path / "a.h5")
    other = table_of(**{"incarnation": 2, **options})
    with pytest.raises(CheckpointError) as refused:
        read_snapshot(str(tmp_path / "a.h5"), other)
    for word in [*words, str(tmp_path / "a.h5")]:
        assert word in str(refused.value)
    assert other.size == 0 and "\n" not in str(refused.value)


def test_a_missing_file_or_another_format_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such"):
        read_snapshot(str(tmp_path / "none.h5"), table_of())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["columns/number"] = np.zeros(100)
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "empty.h5").write_bytes(b"")
    for name in ("other.h5", "text.h5", "empty.h5"):
        with pytest.raises(CheckpointError, match="not a snapshot of this version"):
            read_snapshot(str(tmp_path / name), table_of())
    save(lived_in(1), tmp_path / "a.h5")
    content = (tmp_path / "a.h5").read_bytes()[:-32] + b"headrace replay shard 9".ljust(28, b"\0")
    (tmp_path / "a.h5").write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))
    with pytest.raises(
        CheckpointError, match="'headrace replay shard 9', this version reads 'headrace replay shard 2'"
    ):
        read_snapshot(str(tmp_path / "a.h5"), table_of())


def reseal(path):
    """What a program leaves that changes a snapshot and knows how to sign it."""
    content = path.read_bytes() + b"headrace replay shard 2".ljust(28, b"\0")
    path.write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f["keys"].__setitem__(0, (0, 0, 0, 0)),
        lambda f: f["keys"].__setitem__(0, (2**32 - 1, 0, 0, 0)),
        lambda f: f["free"].__setitem__(0, (2**32 - 1, 0)),
        lambda f: f["priorities"].__setitem__(0, np.nan),
        lambda f: f.attrs.__setitem__("used", 2**40),
        lambda f: f.attrs.__setitem__("size", -1),
        lambda f: f.__delitem__("columns/image"),
        lambda f: f.__delitem__("rng"),
        lambda f: (f.__delitem__("writers"), f.__setitem__("writers", "[[1, 2]]")),
        lambda f: (f.__delitem__("keys"), f.__setitem__("keys", np.zeros(4))),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused_and_nothing_changes(tmp_path, spoil):
    table = lived_in(7)
    assert 0 < table.size < 10
    save(table, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        spoil(file)
    other = table_of(incarnation=2)
    other.insert(rows(3))
    before = everything(other)
    with pytest.raises(CheckpointError, match="damaged: its checksum|cut off"):
        read_snapshot(str(tmp_path / "a.h5"), other)
    reseal(tmp_path / "a.h5")
    with pytest.raises(CheckpointError, match="damaged or not"):
        read_snapshot(str(tmp_path / "a.h5"), other)
    assert everything(other) == before
    other.check_valid()


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    save(lived_in(7, capacity=40), path)
    good = path.read_bytes()
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    offsets = [*range(len(good) - 40, len(good)), *rng.permutation(len(good))[:1000].tolist()]
    for offset in offsets:
        bad = bytearray(good)
        bad[offset] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        other = table_of(incarnation=2, capacity=40)
        with pytest.raises(CheckpointError):
            read_snapshot(str(path), other)
        assert other.size == 0, offset


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    save(lived_in(1), path)
    content = path.read_bytes()
    for length in range(0, len(content), 397):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_snapshot(str(path), table_of(incarnation=2))


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        save(lived_in(1), tmp_path / "file" / "a.h5")


def test_a_writer_rests_in_proportion_but_not_while_an_insert_waits_for_it(tmp_path):
    class Counting:
        def __init__(self):
            self.seconds = []

        def now(self):
            return 0.0

        def sleep(self, seconds):
            self.seconds.append(seconds)

    wide = RecordSpec((Field("x", "uint8", (BLOCK_BYTES,)),))
    table = table_of(4, spec=wide)
    table.insert(np.ones((4, BLOCK_BYTES), np.uint8))

    class Lock(threading.Condition):
        def notify_all(self):
            super().notify_all()
            if self.insert_waits:
                capture.room_for(np.array([3]))  # the last row to be read

    for insert_waits, rests in ((False, 4 + 5), (True, 1 + 5)):  # 4 blocks of rows, 5 of the checksum
        capture, clock, lock = Capture(table, 0), Counting(), Lock()
        lock.insert_waits = insert_waits
        capture.begin()
        write_snapshot(str(tmp_path / "a.h5"), capture, lock, META, Rests(2.0, clock))
        capture.end()
        assert len(clock.seconds) == rests and min(clock.seconds) > 0.0


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.h5"
    script = f"""
import os, sys, threading
import numpy as np
from replay_server import Field, RecordSpec
from replay_server.capture import Capture
from replay_server.clock import SystemClock
from replay_server.snapshot import Rests, ShardMeta, write_snapshot
from replay_server.replay import SnapshotStats
from replay_server.table import Table

spec = RecordSpec((Field("x", "uint8", (65536,)),))
table = Table(spec, 200, incarnation=1)
class Slow(SystemClock):
    def sleep(self, seconds):
        print("block", flush=True)
        super().sleep(0.05)
for turn in range(2):
    table.insert(np.full((200, 65536), turn + 1, np.uint8))
    capture = Capture(table, 10)
    capture.begin()
    meta = ShardMeta(turn, 0.0, 0, [])
    write_snapshot({str(path)!r}, capture, threading.Condition(), meta, Rests(1.0, Slow()))
    capture.end()
    print("written", flush=True)
"""
    for blocks in (0, 3):
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line == "written\n":
                break
        for _ in range(blocks):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        table = Table(RecordSpec((Field("x", "uint8", (65536,)),)), 200, incarnation=2)
        assert read_snapshot(str(path), table).inserted == 0
        assert (table.records == 1).all()
    leftovers = [p for p in tmp_path.iterdir() if p != path]
    assert leftovers, "killed in the middle of a write"


def shard_of(capacity=10, incarnation=1):
    return Shard(table_of(capacity, incarnation), RateLimiter(2, 4.0, 300.0))


def ask(count):
    return SampleRequest(np.array([count]), float(count), Updates(), 0.0)


def test_a_shard_comes_back_with_its_counters_and_its_memory_of_writers(tmp_path):
    shard = shard_of()
    for sequence, count in ((0, 9), (1, 4), (3, 2)):
        shard.insert(InsertRequest(rows(count), np.ones(count), Stamp(5, 2, sequence, opens=True), 0.0))
    shard.sample(ask(8))
    shard.save(str(tmp_path / "sub" / "a.h5"))
    other = shard_of(incarnation=9)
    other.restore(str(tmp_path / "sub" / "a.h5"))
    other.check_valid()
    since_start = {"drawn": 0, "duplicates": 0, "updated": 0, "stale": 0, "snapshots": SnapshotStats()}
    assert replace(shard.stats(), **since_start) == replace(other.stats(), **since_start)
    for sequence, known in ((0, True), (2, False), (3, True), (4, False)):
        request = InsertRequest(rows(1), None, Stamp(5, 2, sequence), 0.0)
        assert (other.insert(request).duplicates == 1) is known
    ours, theirs = shard.sample(ask(0)), other.sample(ask(0))
    assert ours.view.size == theirs.view.size


def test_inserts_and_samples_go_on_while_a_shard_is_saved(tmp_path):
    """What is in the file is one moment: records, counters and writer marks agree."""
    wide = RecordSpec((Field("number", "int64"), Field("x", "uint8", (8184,))))
    shard = Shard(Table(wide, 4000, incarnation=1), RateLimiter())
    stop, errors, done = threading.Event(), [], [0]

    def insert():
        records = np.zeros((50, wide.record_size), np.uint8)
        try:
            while not stop.is_set():
                number = done[0]
                records[:, :8] = np.arange(number * 50, number * 50 + 50)[:, None].view(np.uint8)
                reply = shard.insert(InsertRequest(records, None, Stamp(1, 1, number, opens=number == 0), 5.0))
                assert reply.accepted == 50
                shard.sample(ask(8))
                done[0] += 1
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=insert)
    thread.start()
    went_on, saves = 0, 0
    deadline = time.monotonic() + 30.0
    try:
        while saves < 3 and time.monotonic() < deadline:
            if done[0] < 100:
                time.sleep(0.01)
                continue
            began = done[0]
            shard.save(str(tmp_path / f"{saves}.h5"))
            saves += 1
            went_on = max(went_on, done[0] - began)
    finally:
        stop.set()
        thread.join(10.0)
    assert not errors and saves == 3
    assert went_on > 0, "inserts went on while a file was written"
    for number in range(saves):
        other = Table(wide, 4000, incarnation=2)
        meta = read_snapshot(str(tmp_path / f"{number}.h5"), other)
        other.check_valid()
        numbers = other.records[other.slots.order()][:, :8].copy().view(np.int64)[:, 0]
        np.testing.assert_array_equal(numbers, np.arange(meta.inserted - len(numbers), meta.inserted))
        assert meta.writers == [[1, 1, meta.inserted // 50, "0"]]


def test_an_insert_that_finds_no_room_for_before_images_names_the_snapshot_as_its_reason(tmp_path):
    shard = shard_of(capacity=4)
    shard.insert(InsertRequest(rows(4), None, None, 0.0))
    capture = Capture(shard.table, 1)
    capture.begin()
    assert shard.insert(InsertRequest(rows(2), None, None, 0.0)).blocked_on == "snapshot"
    assert shard.insert(InsertRequest(rows(1), None, None, 0.0)).accepted == 1
    capture.next_block()
    assert shard.insert(InsertRequest(rows(2), None, None, 0.0)).accepted == 2
    capture.end()
    assert Path(tmp_path).exists()


def test_writing_and_reading_take_no_more_memory_than_the_budget_says(tmp_path):
    """Of a table of tiny records that counts draws, where the state is what counts."""
    script = f"""
import numpy as np
from replay_server import Field, RecordSpec
from replay_server.capture import working_bytes
from replay_server.shard import Shard
from replay_server.table import Table

def resident(name):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

rows, spec = 700_000, RecordSpec((Field("x", "int64"),))
tables = [Table(spec, rows, max_times_sampled=3, incarnation=life) for life in (1, 2)]
for table in tables:  # every page of both is there from now on
    table.insert(np.zeros((rows, spec.record_size), np.uint8))
one, other = map(Shard, tables)
for work in (one.save, other.restore):
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM begins anew
    before = resident("VmRSS")
    work({str(tmp_path / "a.h5")!r})
    print(resident("VmHWM") - before, working_bytes(rows, spec.record_size))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    for line in run.stdout.splitlines():
        taken, budget = map(int, line.split())
        print(f"{taken / 700_000:.1f} of {budget / 700_000:.1f} bytes a slot")
        assert budget / 4 < taken <= budget
