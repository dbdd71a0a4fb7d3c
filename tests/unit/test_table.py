"""The table against a list of records."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scipy import stats

from replay_server import ConfigError, Field, InvalidRecord, RecordSpec
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"), Field("value", "float32"), Field("flag", "bool")))


def rows(numbers):
    numbers = np.asarray(numbers, np.int64)
    return SPEC.pack({"number": numbers, "value": numbers.astype(np.float32), "flag": numbers % 2 == 0})


def numbers_of(drawn):
    return SPEC.columns(drawn.records)["number"]


class TableMachine(RuleBasedStateMachine):
    """Random sequences of operations on a table and on a dictionary from slot to (number, priority, birth)."""

    @initialize(capacity=st.integers(1, 40), exponent=st.sampled_from([0.0, 0.6, 1.0]))
    def begin(self, capacity, exponent):
        self.table = Table(SPEC, capacity, priority_exponent=exponent, shard=3, incarnation=77)
        self.exponent = exponent
        self.model = {}
        self.births = 0
        self.cursor = 0
        self.handed = []  # (key row, birth)

    @rule(count=st.integers(0, 40), given=st.booleans(), zero=st.booleans(), seed=st.integers(0, 99))
    def insert(self, count, given, zero, seed):
        count = min(count, self.table.capacity)
        priorities = np.random.default_rng(seed).random(count) * (0.0 if zero else 5.0)
        default = max((p for _, p, _ in self.model.values()), default=0.0) or 1.0
        self.table.insert(rows(self.births + np.arange(count)), priorities if given else None)
        for i in range(count):
            self.model[self.cursor] = (self.births, priorities[i] if given else default, self.births)
            self.births += 1
            self.cursor = (self.cursor + 1) % self.table.capacity

    @rule(counts=st.lists(st.integers(0, 9), max_size=4), method=st.sampled_from(["stratified", "multinomial"]))
    def sample(self, counts, method):
        masses = {s: p**self.exponent if p > 0 else 0.0 for s, (_, p, _) in self.model.items()}
        if sum(masses.values()) == 0.0:
            if sum(counts):
                with pytest.raises(InvalidRecord, match="nothing to sample"):
                    self.table.sample(counts, method=method)
            return
        drawn = self.table.sample(counts, method=method)
        assert len(drawn.records) == len(drawn.keys) == sum(counts)
        for number, key, probability in zip(numbers_of(drawn), drawn.keys, drawn.probabilities, strict=True):
            stored, _, birth = self.model[int(key["slot"])]
            assert stored == number
            assert probability == pytest.approx(masses[int(key["slot"])] / sum(masses.values()), rel=1e-9)
            assert probability > 0.0
            self.handed.append((key.copy(), birth))

    @rule(seed=st.integers(0, 99), count=st.integers(1, 20))
    def update(self, seed, count):
        if not self.handed:
            return
        rng = np.random.default_rng(seed)
        chosen = [self.handed[i] for i in rng.integers(0, len(self.handed), count)]
        priorities = np.where(rng.random(count) < 0.2, 0.0, rng.random(count) * 9.0)
        fresh = 0
        for (key, birth), priority in zip(chosen, priorities, strict=True):
            slot = int(key["slot"])
            if slot in self.model and self.model[slot][2] == birth:
                self.model[slot] = (*self.model[slot][:1], float(priority), birth)
                fresh += 1
        keys = np.array([key for key, _ in chosen])
        assert self.table.update_priorities(keys, priorities) == (fresh, count - fresh)

    @rule()
    def clear(self):
        self.table.clear()
        self.model.clear()
        self.cursor = 0

    @rule()
    def export_and_import(self):
        other = Table(SPEC, self.table.capacity, priority_exponent=self.exponent, seed=5, shard=3, incarnation=77)
        other.import_state(self.table.export_state())
        self.table = other

    @invariant()
    def agrees(self):
        if not hasattr(self, "table"):
            return
        self.table.check_valid()
        assert self.table.size == len(self.model)
        assert self.table.mass == pytest.approx(
            sum(p**self.exponent if p > 0 else 0.0 for _, p, _ in self.model.values()), rel=1e-9
        )


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("method", ["stratified", "multinomial"])
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_frequencies_follow_p_to_the_alpha(method, exponent):
    table = Table(SPEC, 60, priority_exponent=exponent, seed=1)
    priorities = np.random.default_rng(3).random(50) * 4
    priorities[::10] = 0.0
    table.insert(rows(range(50)), priorities)
    seen = np.bincount(numbers_of(table.sample([256] * 200, method=method)), minlength=50)
    expected = np.where(priorities > 0, np.where(priorities > 0, priorities, 1.0) ** exponent, 0.0)
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
