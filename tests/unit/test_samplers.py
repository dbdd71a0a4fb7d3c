"""Which record is drawn: frequencies against exact probabilities, orders against lists."""

import itertools

import numpy as np
import pytest
from scipy import stats

from replay_server import Field, InvalidRecord, RecordSpec
from replay_server.samplers import SAMPLERS
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"),))
PRIORITIZED = ("stratified", "multinomial")


def rows(numbers):
    return SPEC.pack({"number": np.asarray(numbers, np.int64)})


def numbers_of(drawn):
    return SPEC.columns(drawn.records)["number"]


def make(priorities, sampler, **options):
    table = Table(SPEC, len(priorities) + 5, sampler=sampler, seed=4, **options)
    table.insert(rows(range(len(priorities))), np.asarray(priorities, np.float64))
    return table


def exact(priorities, sampler, exponent):
    """The probability of each record, record by record."""
    power = exponent if sampler in PRIORITIZED else 0.0
    masses = np.array([p**power if p > 0 else 0.0 for p in priorities])
    return masses / masses.sum()


@pytest.mark.parametrize("sampler", ["stratified", "multinomial", "uniform"])
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("remover", ["fifo", "lowest_priority"])
def test_frequencies(sampler, exponent, remover):
    rng = np.random.default_rng(3)
    priorities = rng.random(50) * 4.0
    priorities[::10] = 0.0
    table = make(priorities, sampler, priority_exponent=exponent, remover=remover)
    drawn = table.sample([256] * 200)
    probabilities = exact(priorities, sampler, exponent)
    seen = np.bincount(numbers_of(drawn), minlength=50)
    assert not seen[probabilities == 0.0].any()
    some = probabilities > 0.0
    assert stats.chisquare(seen[some], probabilities[some] * seen.sum()).pvalue > 0.01
    np.testing.assert_allclose(drawn.probabilities, probabilities[numbers_of(drawn)], rtol=1e-12)


@pytest.mark.parametrize("sampler", ["stratified", "multinomial", "uniform"])
def test_frequencies_of_draws_that_remove(sampler):
    """Ordered pairs of two draws after one another: the second is from what the first has left."""
    priorities = [1.0, 4.0, 0.0, 2.0, 9.0]
    first = exact(priorities, sampler, 0.6)
    pairs = {(i, j): first[i] * first[j] / (1.0 - first[i]) for i, j in itertools.permutations((0, 1, 3, 4), 2)}
    seen = dict.fromkeys(pairs, 0)
    table = Table(SPEC, 5, sampler=sampler, max_times_sampled=1, seed=11)
    for _ in range(4000):
        table.insert(rows(range(5)), np.array(priorities))
        seen[tuple(numbers_of(table.sample([2])).tolist())] += 1
        table.clear()
    assert stats.chisquare(list(seen.values()), [p * 4000 for p in pairs.values()]).pvalue > 0.01


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_every_record_is_drawn_exactly_max_times_sampled(sampler, limit):
    rng = np.random.default_rng(limit)
    priorities = np.where(rng.random(60) < 0.2, 0.0, rng.random(60) + 0.1)
    table = make(priorities, sampler, max_times_sampled=limit)
    seen, removed = np.zeros(60, int), []
    while table.draws_left:
        drawn = table.sample(rng.multinomial(min(int(rng.integers(1, 50)), table.draws_left), [0.5, 0.5]))
        np.add.at(seen, numbers_of(drawn), 1)
        removed += drawn.removed.tolist()
        table.check_valid()
    np.testing.assert_array_equal(seen, np.where(priorities > 0.0, limit, 0))
    assert sorted(removed) == np.flatnonzero(priorities > 0.0).tolist()
    assert table.size == np.count_nonzero(priorities == 0.0)
    with pytest.raises(InvalidRecord, match="nothing to sample"):
        table.sample([1])


def test_more_draws_than_are_left_are_refused_and_nothing_changes():
    table = make([1.0, 0.0, 1.0], "multinomial", max_times_sampled=3)
    assert table.draws_left == 6
    before = table.export_state()
    with pytest.raises(InvalidRecord, match="7 rows to sample, .* 6 more draws"):
        table.sample([3, 4])
    assert table.export_state().rng == before.rng
    assert len(table.sample([3, 3]).removed) == 2


def test_a_priority_raised_from_zero_brings_its_draws_back():
    table = make([1.0, 1.0], "fifo", max_times_sampled=2)
    keys = table.sample([1]).keys
    table.update_priorities(keys, np.zeros(1))
    assert table.draws_left == 2
    table.update_priorities(keys, np.full(1, 3.0))
    assert table.draws_left == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_record_of_priority_zero_is_never_drawn(sampler):
    for others in itertools.product([0.0, 1.0], repeat=4):
        if not any(others):
            continue
        table = make(others, sampler)
        assert all(others[number] > 0.0 for number in numbers_of(table.sample([40, 40])))
    table = make([0.0, 0.0], sampler)
    with pytest.raises(InvalidRecord, match="nothing to sample"):
        table.sample([1])


@pytest.mark.parametrize(("sampler", "end"), [("fifo", 0), ("lifo", -1)])
def test_without_a_limit_the_same_end_is_drawn_again_and_again(sampler, end):
    table = Table(SPEC, 10, sampler=sampler)
    for number in range(25):
        table.insert(rows([number]))
        held = list(range(max(0, number - 9), number + 1))
        drawn = table.sample([3, 2])
        assert numbers_of(drawn).tolist() == [held[end]] * 5
        assert drawn.probabilities.tolist() == [1.0] * 5


@pytest.mark.parametrize("sampler", ["fifo", "lifo"])
@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_queue_and_a_stack(sampler, limit, seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    table = Table(SPEC, 50, sampler=sampler, max_times_sampled=limit)
    held, births = [], 0  # (number, draws left), oldest first
    for _ in range(300):
        count = int(rng.integers(0, 12))
        if rng.random() < 0.5 and len(held) + count <= 50:
            table.insert(rows(births + np.arange(count)))
            held += [[births + i, limit] for i in range(count)]
            births += count
        elif count <= table.draws_left:
            expected = []
            for _ in range(count):
                record = held[0 if sampler == "fifo" else -1]
                record[1] -= 1
                expected.append(record[0])
                if record[1] == 0:
                    held.remove(record)
            assert numbers_of(table.sample([count])).tolist() == expected
        table.check_valid()
        assert table.size == len(held)
    assert births > 300


def test_the_mass_counts_drawable_records_where_their_size_does_not_matter():
    for sampler in ("uniform", "fifo", "lifo"):
        assert make([9.0, 0.0, 0.5], sampler).mass == 2.0
