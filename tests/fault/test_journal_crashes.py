"""A shard's table and journal, random operations, a crash in the middle of any write: nothing acknowledged is lost."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from fault.simulated_disk import Crashed, SimulatedDisk
from replay_server.errors import JournalError, StorageFull
from replay_server.journal import Counters, Journal
from replay_server.messages import Stamp
from replay_server.specs import Field, RecordSpec
from replay_server.table import Checked, Table
from replay_server.table_state import TableState
from replay_server.writer_marks import Standing, WriterMarks

_BROKE_IT_ONCE = [659373963]
SPEC = RecordSpec((Field("number", "int64"), Field("more", "float32", (5,))))


@dataclass
class Snapshot:
    position: int
    table: TableState
    records: np.ndarray
    writers: list
    counters: Counters


@dataclass
class Life:
    """One shard on one disk, from a start to its crash, and every state its journal may rightly give back."""

    disk: SimulatedDisk
    rng: np.random.Generator
    level: str
    table: Table
    snapshots: list[Snapshot]
    marks: WriterMarks = field(default_factory=WriterMarks)
    counters: Counters = field(default_factory=Counters)
    under_way: Snapshot | None = None

    def start(self):
        after = 0
        if self.snapshots:
            last = self.snapshots[-1]
            self.table.import_state(last.table, [last.records] if len(last.records) else [])
            self.marks.load(last.writers)
            after = last.position
            self.counters = last.counters
        capacity = self.table.capacity
        self.journal = Journal.open("shard", SPEC, 0, capacity, self.level, disk=self.disk, segment_bytes=700)
        try:
            found = self.journal.recover(self.table, self.marks, after, self.counters)
        except BaseException:
            self.journal.close()
            raise
        self.counters = found.counters or self.counters
        self.table.check_valid()
        self.journal.check_valid()
        assert found.records == self.table.size
        self.states, self.acknowledged = [self.state()], 0

    def state(self):
        state = self.table.export_state()
        rows = [(int(s), self.table.records[s].tobytes(), float(state.priorities[s])) for s in state.order]
        return rows, self.marks.to_json(), self.counters

    def step(self):
        """One random operation. Its state is possible from its beginning on, alone from its acknowledgement on."""
        choice = self.rng.random()
        if choice < 0.7:
            self.insert()
        elif choice < 0.9 and self.table.size:
            self.remove()
        elif choice < 0.92:
            self.attempt(lambda: self.journal.clear(self.counters), self.table.clear)
        elif self.under_way is None:
            self.held_back_may_be_written()
            try:
                position = self.journal.begin_snapshot()
            except StorageFull:
                return
            state = self.table.export_state()
            copied = {k: np.copy(v) for k, v in vars(state).items() if isinstance(v, np.ndarray)}
            copy = TableState(**{**vars(state), **copied})
            records = self.table.records[state.order]
            self.under_way = Snapshot(position, copy, records, self.marks.to_json(), self.counters)
        elif self.rng.random() < 0.2:
            self.journal.abandon_snapshot()
            self.under_way = None
        else:
            self.snapshots.append(self.under_way)
            self.under_way = None
            if self.rng.random() < 0.2:
                raise Crashed
            self.journal.forget_before(self.snapshots[-1].position)
        self.journal.check_valid()

    def insert(self):
        count = int(self.rng.integers(0, min(6, self.table.capacity)))
        rows = Checked(
            SPEC.pack(
                {
                    "number": self.rng.integers(2**40, size=count),
                    "more": self.rng.random((count, 5), np.float32),
                }
            ),
            np.full(count, 2.0) if self.rng.random() < 0.5 else self.rng.random(count),
        )
        stamp = Stamp(int(self.rng.integers(3)), int(self.rng.integers(2)), int(self.rng.integers(12)))
        held = {i: e for i, e, *_ in self.marks.to_json()}
        stamp = stamp._replace(epoch=max(stamp.epoch, held.get(stamp.writer_id, 0)))
        standing = self.marks.standing(stamp)
        if standing is Standing.STORED:
            return
        if standing is Standing.OPENING and not self.attempt(
            lambda: self.journal.open_epoch(stamp.writer_id, stamp.epoch, self.counters),
            lambda: self.marks.open(stamp.writer_id, stamp.epoch),
        ):
            return
        slots = self.table.room_for(count)
        counters = self.counters._replace(inserted=self.counters.inserted + count)

        def apply():
            self.counters = counters
            self.table.store(rows, slots)
            self.marks.add(stamp)

        self.attempt(lambda: self.journal.insert(slots, rows, stamp, counters, priority=1.0), apply)

    def remove(self):
        slots = self.rng.permutation(self.table.slots.holding())[: int(self.rng.integers(1, 4))]
        self.held_back_may_be_written()
        self.table.remove(slots)
        self.counters = self.counters._replace(sampled=self.counters.sampled + len(slots))
        try:
            self.journal.remove(slots.astype(np.uint32), self.counters)
        finally:
            if not self.journal.pending_removals:  # else they are gone once the next entry is begun
                self.states.append(self.state())

    def held_back_may_be_written(self):
        """Removals that the full disk did not take go before the next entry."""
        if self.journal.pending_removals:
            self.states.append(self.state())

    def attempt(self, write, apply):
        """Write ahead, then apply; a refused write leaves everything as it was. True when it was acknowledged."""
        self.held_back_may_be_written()
        try:
            lsn = write()
        except StorageFull:
            return False
        except Crashed:
            apply()
            self.states.append(self.state())
            raise
        apply()
        self.states.append(self.state())
        at = len(self.states) - 1
        try:
            self.journal.wait_durable(lsn, 5.0)
        except JournalError:  # the thread that writes back met the crash
            raise Crashed from None
        self.acknowledged = at
        return True


def run(seed, level, power):
    rng = np.random.default_rng(seed)
    disk = SimulatedDisk(rng)
    capacity = int(rng.integers(1, 12))
    remover = "fifo" if rng.random() < 0.5 else "lowest_priority"
    snapshots = []
    for _ in range(4):
        this = str(rng.choice(["journal", "fsync"])) if level == "either" else level
        life = Life(disk, rng, this, Table(SPEC, capacity, remover=remover), snapshots)
        disk.short_writes = 0.1 if rng.random() < 0.3 else 0.0
        life.start()
        disk.crash_in = int(rng.integers(1, 60))
        full = rng.random() < 0.3
        try:
            for turn in range(200):
                if full and turn == 10:
                    disk.room = disk.used + int(rng.integers(0, 300))
                if full and turn == 25:
                    disk.room = None
                life.step()
        except (Crashed, JournalError):
            pass
        disk.room = None
        disk.crash_in = None
        possible, acknowledged = life.states, life.acknowledged
        abandon(life.journal)
        disk.crash(power and rng.random() < 0.7)
        disk.short_writes = 0.0
        again = Life(disk, rng, this, Table(SPEC, capacity, remover=remover), snapshots)
        again.start()
        found = again.state()
        again.journal.close()
        assert any(same(found, state) for state in possible[acknowledged:]), (
            f"found {found}, possible from {acknowledged} on: {possible[acknowledged:]}"
        )


def same(found, state):
    return (found[0], sorted(found[1]), found[2]) == (state[0], sorted(state[1]), state[2])


def abandon(journal):
    """End its thread as a crash would have."""
    if journal._commit is not None:
        journal._commit.fail("the process ended")
        journal._commit.close()


@pytest.mark.parametrize(("level", "power"), [("journal", False), ("either", False), ("fsync", True)])
def test_what_was_acknowledged_survives_a_crash_in_any_write(level, power, soak, figures):
    first = int(np.random.default_rng().integers(2**31))
    seeds = soak.count(60, 2000)
    print(f"seeds {first} to {first + seeds - 1}")
    for seed in [*_BROKE_IT_ONCE, *range(first, first + seeds)]:
        try:
            run(seed, level, power)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    figures.add(seeds=seeds)
