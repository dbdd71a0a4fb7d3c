"""The table against one in plain Python."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from replay_server import ConfigError, Field, InvalidRecord, RecordSpec
from replay_server.batches import KEY_DTYPE
from replay_server.removers import REMOVERS
from replay_server.samplers import SAMPLERS
from replay_server.table import Drawn, Table

SPEC = RecordSpec((Field("number", "int64"), Field("value", "float32"), Field("flag", "bool")))
SEEDS = st.integers(0, 2**32 - 1)


def rows(numbers):
    numbers = np.asarray(numbers, np.int64)
    return SPEC.pack({"number": numbers, "value": numbers.astype(np.float32), "flag": numbers % 2 == 0})


def numbers_of(drawn):
    return SPEC.columns(drawn.records)["number"]


class Model:
    """A table in plain Python: slots in two lists, records in a dictionary."""

    def __init__(self, capacity, exponent, sampler, remover, limit):
        self.capacity, self.sampler, self.remover, self.limit = capacity, sampler, remover, limit
        self.exponent = exponent if sampler in ("stratified", "multinomial") else 0.0
        self.order = []  # live slots, oldest first
        self.free = list(range(capacity))
        self.held = {}  # slot -> SimpleNamespace(number, priority, times)

    def room_for(self, count):
        free = self.free[:count]
        victims = list(self.order)
        if self.remover == "lowest_priority":
            victims.sort(key=lambda slot: self.held[slot].priority)  # stable: of equal ones the oldest
        return free + victims[: count - len(free)]

    def store(self, slots, numbers, priorities):
        default = max((r.priority for r in self.held.values()), default=0.0) or 1.0
        for i, (slot, number) in enumerate(zip(slots, numbers, strict=True)):
            (self.order if slot in self.held else self.free).remove(slot)
            self.order.append(slot)
            priority = default if priorities is None else float(priorities[i])
            self.held[slot] = SimpleNamespace(number=int(number), priority=priority, times=0)

    def remove(self, slots):
        gone = sorted(set(slots) & set(self.held))
        for slot in gone:
            del self.held[slot]
            self.order.remove(slot)
        self.free = gone + self.free

    def clear(self):
        self.held.clear()
        self.order.clear()
        self.free = list(range(self.capacity))

    def masses(self):
        """Of what may still be drawn, oldest first."""
        return {
            slot: self.held[slot].priority ** self.exponent
            for slot in self.order
            if self.held[slot].priority > 0.0 and not (self.limit and self.held[slot].times >= self.limit)
        }

    @property
    def draws_left(self):
        if self.limit is None:
            return math.inf
        return sum(self.limit - r.times for r in self.held.values() if r.priority > 0.0)

    def drawn(self, slots, probabilities):
        """Check draws that a table made, one after the other, and make them here."""
        for slot, probability in zip(slots, probabilities, strict=True):
            masses = self.masses()
            if self.sampler in ("fifo", "lifo"):
                assert slot == list(masses)[0 if self.sampler == "fifo" else -1]
                assert probability == 1.0
            else:
                assert probability == pytest.approx(masses[slot] / sum(masses.values()), rel=1e-9)
            self.held[slot].times += 1
        last = sorted(slot for slot, r in self.held.items() if self.limit and r.times >= self.limit)
        self.remove(last)
        return last


class TableMachine(RuleBasedStateMachine):
    """Random sequences of operations on a table and on its model."""

    @initialize(
        capacity=st.integers(1, 40),
        exponent=st.sampled_from([0.0, 0.6, 1.0]),
        sampler=st.sampled_from(SAMPLERS),
        remover=st.sampled_from(REMOVERS),
        limit=st.sampled_from([None, 1, 2, 5]),
    )
    def begin(self, capacity, exponent, sampler, remover, limit):
        self.settings = {
            "priority_exponent": exponent,
            "sampler": sampler,
            "remover": remover,
            "max_times_sampled": limit,
        }
        self.table = Table(SPEC, capacity, **self.settings, shard=3, incarnation=77)
        self.model = Model(capacity, exponent, sampler, remover, limit)
        self.births = 0
        self.handed = []  # (key row, number)

    def numbers(self, count):
        self.births += count
        return np.arange(self.births - count, self.births)

    @rule(count=st.integers(0, 40), given=st.booleans(), levels=st.sampled_from([0, 1, 3, 10**6]), seed=SEEDS)
    def insert(self, count, given, levels, seed):
        count = min(count, self.table.capacity)
        priorities = np.random.default_rng(seed).integers(0, levels + 1, count) / 3.0 if given else None
        slots = self.table.room_for(count)
        assert slots.tolist() == self.model.room_for(count)
        numbers = self.numbers(count)
        self.table.insert(rows(numbers), priorities)
        self.model.store(slots.tolist(), numbers, priorities)

    @rule(count=st.integers(0, 30), seed=SEEDS)
    def store_anywhere(self, count, seed):
        rng, count = np.random.default_rng(seed), min(count, self.table.capacity)
        slots = rng.integers(0, self.table.capacity, count)  # equal ones, too
        numbers, priorities = self.numbers(count), rng.integers(0, 4, count) / 3.0
        self.table.store(self.table.check(rows(numbers), priorities), slots)
        self.model.store(slots.tolist(), numbers, priorities)

    @rule(counts=st.lists(st.integers(0, 9), max_size=4), given=st.booleans())
    def sample(self, counts, given):
        total, may = sum(counts), self.model.draws_left if self.model.masses() else 0
        if total > may:
            with pytest.raises(InvalidRecord, match="nothing to sample|more draws"):
                self.table.sample(counts)
            return
        out = None
        if given:
            out = Drawn(
                np.zeros((total, SPEC.record_size), np.uint8), np.zeros(total, KEY_DTYPE), np.zeros(total), np.zeros(0)
            )
        drawn = self.table.sample(counts, out)
        if given:
            assert drawn.records is out.records and drawn.keys is out.keys and drawn.probabilities is out.probabilities
        slots = drawn.keys["slot"].tolist()
        numbers = [self.model.held[slot].number for slot in slots]
        assert numbers_of(drawn).tolist() == numbers
        assert len(slots) == total
        assert self.model.drawn(slots, drawn.probabilities) == drawn.removed.tolist()
        self.handed += zip(drawn.keys.copy(), numbers, strict=True)

    @rule(seed=SEEDS, count=st.integers(1, 20))
    def update(self, seed, count):
        if not self.handed:
            return
        rng = np.random.default_rng(seed)
        chosen = [self.handed[i] for i in rng.integers(0, len(self.handed), count)]
        priorities = np.where(rng.random(count) < 0.2, 0.0, rng.integers(0, 5, count) / 2.0)
        fresh = 0
        for (key, number), priority in zip(chosen, priorities, strict=True):
            record = self.model.held.get(int(key["slot"]))
            if record is not None and record.number == number:
                record.priority = float(priority)
                fresh += 1
        keys = np.array([key for key, _ in chosen])
        keys.flags.writeable = False  # as they come off the wire
        assert self.table.update_priorities(keys, priorities) == (fresh, count - fresh)

    @rule(seed=SEEDS, count=st.integers(0, 10))
    def remove(self, seed, count):
        slots = np.random.default_rng(seed).integers(0, self.table.capacity, count).astype(np.uint32)
        self.table.remove(slots)
        self.model.remove(slots.tolist())

    @rule()
    def clear(self):
        self.table.clear()
        self.model.clear()

    @rule()
    def export_and_import(self):
        other = Table(SPEC, self.table.capacity, **self.settings, seed=5, shard=3, incarnation=77)
        other.import_state(*exported(self.table))
        assert_same_state(other, self.table)
        self.table = other

    @invariant()
    def agrees(self):
        if not hasattr(self, "table"):
            return
        self.table.check_valid()
        state = self.table.export_state()
        slots = np.sort(state.order)
        held = [self.model.held[slot] for slot in slots.tolist()]
        assert state.order.tolist() == self.model.order
        assert [*state.free, *range(len(state.generations), self.table.capacity)] == self.model.free
        assert SPEC.columns(self.table.records[slots])["number"].tolist() == [r.number for r in held]
        assert state.priorities[slots].tolist() == [r.priority for r in held]
        assert self.table.size == len(held)
        assert self.table.draws_left == self.model.draws_left
        assert self.table.mass == pytest.approx(sum(self.model.masses().values()), rel=1e-9)


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def exported(table):
    """What `import_state` takes."""
    state = table.export_state()
    return state, [table.records[part] for part in (state.order[:3], state.order[3:]) if len(part)]


def assert_same_state(ours, theirs):
    a, b = ours.export_state(), theirs.export_state()
    for name in ("priorities", "order", "free", "generations"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    assert ours.records[a.order].tobytes() == theirs.records[b.order].tobytes()
    assert (a.times_sampled is None) == (b.times_sampled is None)
    if a.times_sampled is not None and b.times_sampled is not None:
        assert a.times_sampled[a.order].tobytes() == b.times_sampled[b.order].tobytes()
    assert a.rng == b.rng


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 64), st.integers(0, 200))
def test_the_oldest_are_overwritten_first(capacity, total):
    table = Table(SPEC, capacity)
    for number in range(total):
        table.insert(rows([number]))
    held = sorted(SPEC.columns(table.records[: table.size])["number"].tolist())
    assert held == list(range(max(0, total - capacity), total))


def bad_float(records):
    SPEC.columns(records)["value"][1] = np.nan


def bad_inf(records):
    SPEC.columns(records)["value"][1] = -np.inf


def bad_bool(records):
    SPEC.columns(records)["flag"].view(np.uint8)[1] = 2


@pytest.mark.parametrize("spoil", [bad_float, bad_inf, bad_bool])
def test_bad_values_are_refused_and_nothing_changes(spoil):
    table = Table(SPEC, 8)
    table.insert(rows([1, 2]))
    before = table.records.copy(), table.mass
    records = rows([5, 6, 7])
    spoil(records)
    with pytest.raises(InvalidRecord):
        table.insert(records)
    np.testing.assert_array_equal(table.records, before[0])
    assert table.mass == before[1]
    table.check_valid()


@pytest.mark.parametrize(
    "priorities", [[1.0], [1.0, np.nan], [1.0, np.inf], [1.0, -1e-9], [1.0, 1e200], [[1.0], [1.0]], ["a", "b"]]
)
def test_bad_priorities_are_refused_and_nothing_changes(priorities):
    table = Table(SPEC, 8)
    table.insert(rows([1, 2]))
    keys = table.sample([2]).keys
    with pytest.raises(InvalidRecord):
        table.insert(rows([3, 4]), np.array(priorities))
    with pytest.raises(InvalidRecord):
        table.update_priorities(keys, np.array(priorities))
    assert (table.size, table.mass) == (2, 2.0)


def test_more_rows_than_the_table_holds_are_refused():
    table = Table(SPEC, 3)
    with pytest.raises(InvalidRecord, match="4 records in one insert, the table holds 3"):
        table.insert(rows(range(4)))
    table.insert(rows(range(3)))


@pytest.mark.parametrize("field", ["shard", "incarnation", "generation", "slot"])
def test_a_key_of_something_else_is_stale(field):
    table = Table(SPEC, 8, shard=1, incarnation=2)
    table.insert(rows(range(5)))
    keys = table.sample([3]).keys.copy()
    keys[field] += 100
    assert table.update_priorities(keys, np.full(3, 50.0)) == (0, 3)
    assert table.mass == 5.0


def test_of_equal_keys_the_last_wins():
    table = Table(SPEC, 4, priority_exponent=1.0)
    table.insert(rows([0]))
    keys = np.repeat(table.sample([1]).keys, 3)
    assert table.update_priorities(keys, np.array([9.0, 7.0, 4.0])) == (3, 0)
    assert table.mass == 4.0


def test_new_records_get_the_largest_priority_now_in_the_table():
    table = Table(SPEC, 2, priority_exponent=1.0)
    table.insert(rows([0, 1]), np.array([8.0, 3.0]))
    table.insert(rows([2]))  # 8 is overwritten by 8
    assert table.mass == 11.0
    table.update_priorities(table.sample([64]).keys, np.full(64, 2.0))
    table.insert(rows([3]))
    assert table.mass == 4.0  # 8 was lowered: the largest now is 2


def test_a_largest_priority_that_was_removed_counts_no_more():
    table = Table(SPEC, 8, priority_exponent=1.0, max_times_sampled=1, sampler="fifo")
    table.insert(rows([0, 1]), np.array([8.0, 3.0]))
    table.sample([1])
    table.insert(rows([2]))
    assert table.mass == 6.0 / 3.0  # fifo counts records
    assert table.priorities[[1, 0]].tolist() == [3.0, 3.0]
    table.remove(np.array([0, 1]))
    table.insert(rows([3]))
    assert table.priorities.max() == 1.0  # nothing to go by


@pytest.mark.parametrize("largest", [1e-9, 0.3, 1e6])
def test_priorities_of_new_records_are_in_the_units_of_the_others(largest):
    """A constant 1 beside tiny TD errors gives every new record a weight of nothing (torchrl 2210, ray 11750)."""
    table = Table(SPEC, 8, priority_exponent=0.6)
    table.insert(rows([0, 1]), np.array([largest, largest / 2]))
    table.insert(rows([2]))
    drawn = table.sample([4000])
    masses = np.array([largest, largest / 2, largest]) ** 0.6  # the exponent once, also for the new one (torchrl 3925)
    np.testing.assert_allclose(drawn.probabilities, (masses / masses.sum())[numbers_of(drawn)], rtol=1e-12)


def test_a_key_does_not_reach_the_record_that_took_its_slot():
    """Nor the free slot in between (ray 6534)."""
    table = Table(SPEC, 1, priority_exponent=1.0, max_times_sampled=2, sampler="fifo")
    table.insert(rows([0]), np.array([2.0]))
    keys = table.sample([1]).keys
    table.insert(rows([1]), np.array([4.0]))
    assert table.update_priorities(keys, np.array([50.0])) == (0, 1)
    keys = table.sample([2]).keys
    assert table.size == 0
    assert table.update_priorities(keys, np.array([50.0, 50.0])) == (0, 2)
    free = keys[:1].copy()
    free["generation"] += 1  # the free slot's own
    assert table.update_priorities(free, np.array([50.0])) == (0, 1)
    table.check_valid()


def test_no_free_slot_is_ever_drawn():
    """Not even by positions at the very end of the mass."""
    table = Table(SPEC, 1000, priority_exponent=1.0)
    table.insert(rows(range(3)), np.array([0.1, 0.2, 0.3]))
    table._rng = SimpleNamespace(random=lambda count: np.full(count, np.nextafter(1.0, 0.0)))
    for counts in ([1], [7, 3]):
        assert set(numbers_of(table.sample(counts))) <= {0, 1, 2}


class Keeper:
    def __init__(self, table):
        self.table, self.kept = table, []

    def keep(self, slots):
        self.kept += zip(slots.tolist(), SPEC.columns(self.table.records[slots])["number"].tolist(), strict=True)


def test_a_capture_is_asked_before_rows_are_overwritten():
    table = Table(SPEC, 4)
    table.insert(rows([10, 11, 12]))
    table.capture = keeper = Keeper(table)
    table.insert(rows([13, 14]))
    assert keeper.kept == [(3, 0), (0, 10)]
    table.clear()
    table.update_priorities(table.sample([0]).keys, np.zeros(0))
    assert len(keeper.kept) == 2


@pytest.mark.parametrize("slots", [[0, 1], [0, 1, 8], [0, 1, -1], [[0, 1, 2]]])
def test_slots_that_do_not_fit_the_rows_or_the_table_are_refused(slots):
    table = Table(SPEC, 8)
    with pytest.raises(InvalidRecord, match="slots"):
        table.store(table.check(rows([1, 2, 3]), None), np.array(slots))
    assert table.size == 0


def lived_in(**options):
    table = Table(SPEC, 30, seed=8, **options)
    rng = np.random.default_rng(1)
    for start in range(0, 60, 6):
        table.insert(rows(range(start, start + 6)), rng.random(6) + 0.1)
        keys = table.sample([3]).keys
        table.update_priorities(keys, rng.random(3))
    return table


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("remover", REMOVERS)
@pytest.mark.parametrize("limit", [None, 2])
def test_an_imported_table_goes_on_like_the_exported_one(sampler, remover, limit):
    options = {"sampler": sampler, "remover": remover, "max_times_sampled": limit}
    ours, theirs = lived_in(**options), Table(SPEC, 30, seed=0, **options)
    theirs.insert(rows(range(25)))  # is all replaced
    theirs.import_state(*exported(ours))
    for step in range(12):
        assert_same_state(ours, theirs)
        theirs.check_valid()
        a, b = (table.sample([2, 3]) for table in (ours, theirs))
        for name in ("records", "keys", "probabilities", "removed"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for table in (ours, theirs):
            table.update_priorities(a.keys, np.linspace(0.0, 2.0, 5))
            table.insert(rows(range(100 + 10 * step, 110 + 10 * step)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: {"order": s.order[:-1]},
        lambda s: {"priorities": s.priorities[:-1]},
        lambda s: {"priorities": -s.priorities - 1},
        lambda s: {"order": s.order * 0},
        lambda s: {"order": s.order + 100},
        lambda s: {"free": s.free[:-1]},
        lambda s: {"generations": s.generations + 1},
        lambda s: {"generations": s.generations[:-1]},
        lambda s: {"times_sampled": None},
        lambda s: {"times_sampled": s.times_sampled + 5},
    ],
)
def test_a_state_that_contradicts_itself_is_refused_and_nothing_changes(wrong):
    table = lived_in(max_times_sampled=5)
    table.remove(np.array([3, 29]))
    state, records = exported(table)
    other = Table(SPEC, 30, max_times_sampled=5)
    other.insert(rows([1]))
    with pytest.raises(InvalidRecord):
        other.import_state(replace(state, **wrong(state)), records)
    assert SPEC.columns(other.records[: other.size])["number"].tolist() == [1]
    other.check_valid()
    other.import_state(state, records)


def test_a_state_of_a_larger_table_is_refused():
    with pytest.raises(InvalidRecord, match="capacity"):
        Table(SPEC, 29).import_state(*exported(lived_in()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Table(SPEC, 0),
        lambda: Table(SPEC, 1, priority_exponent=1.5),
        lambda: Table(SPEC, 2**33),
        lambda: Table(SPEC, 1, sampler="best"),
        lambda: Table(SPEC, 1, remover="lifo"),
        lambda: Table(SPEC, 1, max_times_sampled=0),
    ],
)
def test_impossible_tables_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_bytes_beyond_the_record():
    assert Table(SPEC, 50_000).overhead_bytes / 50_000 < 31
    assert Table(SPEC, 50_000, remover="lowest_priority", max_times_sampled=4).overhead_bytes / 50_000 < 45


def test_the_same_seed_draws_the_same():
    a, b = (Table(SPEC, 20, seed=9) for _ in range(2))
    for table in (a, b):
        table.insert(rows(range(20)), np.arange(20) * 1.0)
    np.testing.assert_array_equal(a.sample([32, 5]).keys, b.sample([32, 5]).keys)


WARM = """
import sys
import numpy as np
from replay_server import removers, samplers, slots, sum_tree, table
from test_table import rows, workout

def compiled():
    found = [vars(module).values() for module in (removers, samplers, slots, sum_tree)]
    kernels = [kernel for values in found for kernel in values if hasattr(kernel, "signatures")]
    assert len(kernels) > 10
    return {(kernel.__name__, str(signature)) for kernel in kernels for signature in kernel.signatures}

table.warm_up()
before = compiled()
workout()
assert not compiled() - before, compiled() - before
"""


def workout():
    """Every operation on every kind of table, with arrays as they come off the wire."""
    for sampler, remover, limit in itertools.product(SAMPLERS, REMOVERS, (None, 2)):
        table = Table(SPEC, 20, sampler=sampler, remover=remover, max_times_sampled=limit)
        records, priorities, counts = rows(range(8)), np.ones(8), np.array([2, 3])
        for array in (records, priorities, counts):
            array.flags.writeable = False
        for _ in range(4):
            table.insert(records, priorities)
            table.insert(records)
        keys = table.sample(counts).keys
        keys.flags.writeable = False
        table.update_priorities(keys, priorities[:5])
        table.remove(np.array([3, 9], np.uint32))
        table.store(table.check(records, priorities), np.arange(8, dtype=np.uint32)[::-1])
        table.import_state(*exported(table))
        table.check_valid()
        table.clear()


def test_nothing_is_compiled_after_the_warm_up():
    subprocess.run([sys.executable, "-c", WARM], cwd=Path(__file__).parent, check=True, timeout=120)
