"""A capture shows the table as it was at the cut, whatever happens to the table while it is read."""

import threading

import numpy as np
import pytest

from replay_server import Field, RecordSpec
from replay_server.capture import BLOCK_BYTES, Capture, before_image_rows, working_bytes
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"), Field("image", "uint8", (BLOCK_BYTES // 8,))))
"""Seven rows a block, so that small tables have many."""
SMALL = RecordSpec((Field("number", "int64"),))


def rows(start, count, spec=SMALL):
    records = np.zeros((count, spec.record_size), np.uint8)
    records[:, :8] = np.arange(start, start + count)[:, None].view(np.uint8)
    return records


def frozen(table):
    """All of a table, copied."""
    state = table.export_state()
    arrays = [state.order, state.free, state.priorities, state.generations, table.records[state.order]]
    if state.times_sampled is not None:
        arrays.append(state.times_sampled)
    return [array.tobytes() for array in arrays], state.incarnation, dict(state.rng)


def seen(capture, blocks):
    """The same of a capture that has been read."""
    state = capture.state
    records = np.concatenate([np.zeros((0, capture.table.spec.record_size), np.uint8), *blocks])
    arrays = [state.order, state.free, state.priorities, state.generations, records]
    if state.times_sampled is not None:
        arrays.append(state.times_sampled)
    return [array.tobytes() for array in arrays], state.incarnation, dict(state.rng)


class Traffic:
    """Random operations on a table, under a capture's rules; everything follows from the seed."""

    def __init__(self, table, seed):
        self.table = table
        self.rng = np.random.default_rng(seed)
        self.inserted = 0
        self.refused = 0

    def insert(self, capture):
        count = int(self.rng.integers(1, max(self.table.capacity // 3, 2)))
        slots = self.table.room_for(count)
        if capture is not None and not capture.room_for(slots):
            self.refused += 1
            return
        records = self.table.check(rows(self.inserted, count, self.table.spec), self.rng.integers(0, 5, count) / 2)
        self.table.store(records, slots)
        self.inserted += count

    def sample(self, capture):
        count = min(int(self.rng.integers(1, 6)), int(min(self.table.draws_left, 6)))
        if self.table.mass > 0.0 and count:
            keys = self.table.sample([count]).keys
            self.table.update_priorities(keys, self.rng.random(count))

    def remove(self, capture):
        order = self.table.slots.order()
        if len(order):
            self.table.remove(self.rng.choice(order, min(len(order), 3), replace=False))

    def clear(self, capture):
        self.table.clear()

    def run(self, steps, capture=None):
        for _ in range(steps):
            chance = self.rng.random()
            if chance < 0.5:
                self.insert(capture)
            elif chance < 0.85:
                self.sample(capture)
            elif chance < 0.98:
                self.remove(capture)
            else:
                self.clear(capture)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_is_the_cut_whatever_comes_between(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    spec = SPEC if seed % 2 else SMALL
    capacity = int(rng.integers(1, 40))
    table = Table(
        spec,
        capacity,
        sampler=str(rng.choice(["stratified", "multinomial", "uniform", "fifo", "lifo"])),
        remover=str(rng.choice(["fifo", "lowest_priority"])),
        max_times_sampled=int(rng.integers(1, 4)) if rng.random() < 0.5 else None,
        seed=seed,
        incarnation=7,
    )
    traffic = Traffic(table, seed)
    traffic.run(30)
    capture = Capture(table, int(rng.integers(0, capacity + 1)))
    capture.begin()
    expected = frozen(table)
    blocks = []
    for _ in range(capacity + 3):
        traffic.run(int(rng.integers(0, 4)), capture)
        if (block := capture.next_block()) is None:
            break
        assert block.first == sum(map(len, blocks))
        assert block.records.nbytes <= max(BLOCK_BYTES, spec.record_size)
        blocks.append(block.records.copy())
    assert capture.finished and capture.next_block() is None
    assert seen(capture, blocks) == expected
    capture.end()
    table.check_valid()
    traffic.run(20)
    assert table.capture is None


def test_a_restored_cut_is_the_table_at_the_cut():
    table = Table(SMALL, 20, max_times_sampled=3, remover="lowest_priority", seed=1)
    traffic = Traffic(table, 3)
    traffic.run(100)
    capture = Capture(table, 20)
    capture.begin()
    expected = frozen(table)
    traffic.run(5, capture)
    blocks = []
    while (block := capture.next_block()) is not None:
        blocks.append(block.records.copy())
        traffic.run(5, capture)
    twin = Table(SMALL, 20, max_times_sampled=3, remover="lowest_priority", seed=2)
    twin.import_state(capture.state, blocks)
    twin.check_valid()
    assert frozen(twin)[0][:5] == expected[0][:5]
    assert frozen(twin)[2] == expected[2]


def test_a_full_buffer_refuses_rows_until_they_have_been_read():
    table = Table(SPEC, 21)
    table.insert(rows(0, 21, SPEC))
    capture = Capture(table, 3)
    capture.begin()
    assert not capture.awaited
    assert capture.room_for(table.room_for(3))
    table.insert(rows(100, 3, SPEC))
    assert not capture.room_for(table.room_for(1)), "three of the oldest rows are kept aside: no room for a fourth"
    assert capture.awaited
    assert capture.room_for(np.array([0, 1, 2])), "these were kept before and may be overwritten again"
    assert capture.next_block().records[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert not capture.awaited
    for start, count in ((103, 4), (107, 3)):
        assert capture.room_for(table.room_for(count)), (
            "four more rows were read already, the next three fit the buffer"
        )
        table.insert(rows(start, count, SPEC))
    assert not capture.room_for(table.room_for(1))
    left = [block.records[:, 0].tolist() for block in iter(capture.next_block, None)]
    assert [number for numbers in left for number in numbers] == list(range(7, 21))


def test_without_a_buffer_inserts_wait_for_the_reader_alone():
    table = Table(SPEC, 14)
    table.insert(rows(0, 10, SPEC))
    capture = Capture(table, 0)
    capture.begin()
    assert capture.room_for(table.room_for(4)), "slots that held nothing at the cut"
    assert not capture.room_for(table.room_for(5))
    table.insert(rows(50, 4, SPEC))
    capture.next_block()
    assert capture.room_for(table.room_for(7))
    assert not capture.room_for(table.room_for(8))


def test_an_empty_table_has_nothing_to_read():
    capture = Capture(Table(SMALL, 5), 2)
    capture.begin()
    assert capture.finished and capture.next_block() is None
    assert len(capture.state.order) == len(capture.state.free) == 0


def test_slots_named_twice_take_one_place_in_the_buffer():
    table = Table(SMALL, 4)
    table.insert(rows(0, 4))
    capture = Capture(table, 2)
    capture.begin()
    table.store(table.check(rows(9, 4), None), np.array([1, 1, 2, 1]))
    assert capture.next_block().records[:, 0].tolist() == [0, 1, 2, 3]
    assert table.records[:, 0].tolist() == [0, 12, 11, 3]


def test_threads_that_insert_and_sample_meanwhile_leave_no_trace_in_the_capture():
    table = Table(SMALL, 200_000, seed=5)
    table.insert(rows(0, 200_000), np.full(200_000, 1.0))
    lock, stop, counts = threading.Condition(), threading.Event(), [0, 0]

    def insert():
        while not stop.is_set():
            with lock:
                slots = table.room_for(4096)
                if table.capture is None or table.capture.room_for(slots):
                    table.store(table.check(rows(10**6, 4096), None), slots)
                    counts[0] += 1
                else:
                    lock.wait(0.05)

    def sample():
        while not stop.is_set():
            with lock:
                table.update_priorities(table.sample([64]).keys, np.full(64, 3.0))
                counts[1] += 1

    threads = [threading.Thread(target=insert), threading.Thread(target=sample)]
    capture = Capture(table, 10_000)
    with lock:
        capture.begin()
        expected = frozen(table)
    for thread in threads:
        thread.start()
    blocks = []
    try:
        while True:
            with lock:
                block = capture.next_block()
                if block is None:
                    capture.end()
                    break
                blocks.append(block.records.copy())
                lock.notify_all()
    finally:
        stop.set()
        for thread in threads:
            thread.join(10.0)
    assert seen(capture, blocks) == expected
    assert min(counts) > 0
    table.check_valid()


@pytest.mark.parametrize("size", [80, 1040, 56_464, 5_000_000])
@pytest.mark.parametrize("capacity", [1, 1000, 1 << 20])
def test_the_memory_of_a_capture_is_what_the_budget_says(capacity, size):
    kept = before_image_rows(capacity, size)
    assert 1 <= kept <= capacity
    assert kept * size <= max(capacity * size // 8, 16 << 20, size)
    assert working_bytes(capacity, size) >= capacity * 29 + kept * size


def test_the_arrays_of_a_capture_fit_its_budget():
    spec = RecordSpec((Field("x", "uint8", (1040,)),))
    table = Table(spec, 10_000, max_times_sampled=2)
    capture = Capture(table, before_image_rows(10_000, 1040))
    capture.begin()
    held = [
        value for value in [*vars(capture).values(), *vars(capture.state).values()] if isinstance(value, np.ndarray)
    ]
    owned = {id(array): array.nbytes for array in held if array.base is None}
    assert sum(owned.values()) <= working_bytes(10_000, 1040)
