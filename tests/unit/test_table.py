"""The table against one in plain Python."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scipy import stats

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
        other.import_state(self.table.export_state())
        assert_same_state(other, self.table)
        self.table = other

    @invariant()
    def agrees(self):
        if not hasattr(self, "table"):
            return
        self.table.check_valid()
        state = self.table.export_state()
        held = [self.model.held[slot] for slot in state.slots.tolist()]
        assert state.order.tolist() == self.model.order
        assert [*state.free, *range(len(state.generations), self.table.capacity)] == self.model.free
        assert SPEC.columns(state.records)["number"].tolist() == [r.number for r in held]
        assert state.priorities.tolist() == [r.priority for r in held]
        assert self.table.size == len(held)
        assert self.table.draws_left == self.model.draws_left
        assert self.table.mass == pytest.approx(sum(self.model.masses().values()), rel=1e-9)


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def assert_same_state(ours, theirs):
    a, b = ours.export_state(), theirs.export_state()
    for name in ("slots", "records", "priorities", "order", "free", "generations"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    assert (a.times_sampled is None) == (b.times_sampled is None)
    assert a.times_sampled is None or a.times_sampled.tobytes() == b.times_sampled.tobytes()
    assert a.rng == b.rng


@pytest.mark.parametrize("sampler", ["stratified", "multinomial", "uniform"])
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_frequencies_follow_p_to_the_alpha(sampler, exponent):
    table = Table(SPEC, 60, priority_exponent=exponent, sampler=sampler, seed=1)
    priorities = np.random.default_rng(3).random(50) * 4
    priorities[::10] = 0.0
    table.insert(rows(range(50)), priorities)
    seen = np.bincount(numbers_of(table.sample([256] * 200)), minlength=50)
    table_exponent = 0.0 if sampler == "uniform" else exponent
    expected = np.where(priorities > 0, np.where(priorities > 0, priorities, 1.0) ** table_exponent, 0.0)
    assert not seen[expected == 0].any()
    expected = expected[expected > 0] / expected.sum() * seen.sum()
    statistic = stats.chisquare(seen[seen > 0], expected)
    assert statistic.pvalue > 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 64), st.integers(0, 200))
def test_the_oldest_are_overwritten_first(capacity, total):
    table = Table(SPEC, capacity)
    for number in range(total):
        table.insert(rows([number]))
    held = sorted(SPEC.columns(table.export_state().records)["number"].tolist())
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
    before = table.export_state().records.copy(), table.mass
    records = rows([5, 6, 7])
    spoil(records)
    with pytest.raises(InvalidRecord):
        table.insert(records)
    np.testing.assert_array_equal(table.export_state().records, before[0])
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


@pytest.mark.parametrize(
    "make", [lambda: Table(SPEC, 0), lambda: Table(SPEC, 1, priority_exponent=1.5), lambda: Table(SPEC, 2**33)]
)
def test_impossible_tables_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_bytes_beyond_the_record():
    assert Table(SPEC, 50_000).overhead_bytes / 50_000 <= 48


def test_the_same_seed_draws_the_same():
    a, b = (Table(SPEC, 20, seed=9) for _ in range(2))
    for table in (a, b):
        table.insert(rows(range(20)), np.arange(20) * 1.0)
    np.testing.assert_array_equal(a.sample([32, 5]).keys, b.sample([32, 5]).keys)
