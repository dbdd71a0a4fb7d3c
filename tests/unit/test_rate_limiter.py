"""The rate limiter's laws, and that no settings it accepts can dead-lock."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay_server import ConfigError, Field, InvalidRecord, RateLimiter, RecordSpec
from replay_server.messages import View
from replay_server.shard import Shard
from replay_server.sharding import ShardViews
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"),))


def test_min_size_alone():
    limiter = RateLimiter(min_size=10)
    assert limiter.blocks_sample(9, 9, 0.0, 1) == "min_size"
    assert limiter.blocks_sample(10, 10, 1e9, 1) is None
    assert limiter.blocks_insert(10**9, 10**9, 0.0, 1) is None


def test_samples_per_insert_bounds():
    limiter = RateLimiter(min_size=100, samples_per_insert=4.0, error_buffer=50.0)  # error in (350, 450)
    assert limiter.blocks_insert(99, 10**6, 0.0, 1) is None  # below min_size inserts always pass
    assert limiter.blocks_insert(100, 112, 0.0, 1) is None  # 448
    assert limiter.blocks_insert(100, 113, 2.0, 1) == "samples"  # 450
    assert limiter.blocks_insert(100, 113, 2.5, 1) is None
    assert limiter.blocks_sample(100, 100, 49.5, 1) is None  # 350.5
    assert limiter.blocks_sample(100, 100, 50.0, 1) == "inserts"  # 350
    assert limiter.blocks_sample(99, 100, 0.0, 1) == "min_size"


@pytest.mark.parametrize(
    "settings_",
    [
        {"min_size": 0},
        {"samples_per_insert": 0.0},
        {"samples_per_insert": -1.0},
        {"samples_per_insert": float("nan")},
        {"samples_per_insert": 2.0, "error_buffer": 0.0},
        {"samples_per_insert": 2.0, "error_buffer": -3.0},
        {"samples_per_insert": 2.0, "error_buffer": float("inf")},
        {"error_buffer": 3.0},
        {"queue_size": 0},
        {"queue_size": 5, "min_size": 2},
        {"queue_size": 5, "samples_per_insert": 1.0},
    ],
)
def test_impossible_settings_are_refused(settings_):
    with pytest.raises(ConfigError, match="rate_limiter"):
        RateLimiter(**settings_)


@settings(max_examples=300, deadline=None)
@given(
    min_size=st.integers(1, 500),
    ratio=st.floats(0.01, 64.0),
    buffer=st.one_of(st.none(), st.floats(1e-3, 1e4)),
    capacity=st.integers(1, 1000),
    chunk=st.integers(1, 700),
    batch=st.integers(1, 700),
    seed=st.integers(0, 9),
)
def test_one_side_may_always_go_on_and_the_ratio_is_kept(min_size, ratio, buffer, capacity, chunk, batch, seed):
    """Any chunk and batch length, even beyond the buffer, and a clear in between."""
    capacity = max(capacity, min_size)
    limiter = RateLimiter(min_size, ratio, buffer)
    rng = np.random.default_rng(seed)
    size, inserted, sampled = 0, 0, 0.0
    for step in range(300):
        may_insert = limiter.blocks_insert(size, inserted, sampled, 1) is None
        may_sample = limiter.blocks_sample(size, inserted, sampled, 1) is None
        assert may_insert or may_sample
        if may_insert and (not may_sample or rng.random() < 0.5):
            inserted += chunk
            size = min(size + chunk, capacity)
        else:
            sampled += batch
        if size >= min_size and step < 150:  # overshoot by one operation at most
            error = inserted * ratio - sampled - ratio * min_size
            assert -limiter.error_buffer - batch <= error <= limiter.error_buffer + ratio * (chunk + min_size)
        if step == 150:
            size = 0


@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 4),
    share=st.floats(0.05, 1.0),
    min_size=st.integers(1, 30),
    buffer=st.one_of(st.none(), st.floats(0.01, 50.0)),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_records_that_leave_do_not_stop_batches_of_min_size(limit, share, min_size, buffer, chunk, seed):
    limiter = RateLimiter(min_size, share * limit, buffer)
    table = Table(SPEC, 40, max_times_sampled=limit)
    limiter.check_table(table.capacity, limit)
    rng = np.random.default_rng(seed)
    inserted, sampled = 0, 0.0
    for _ in range(60):
        batch = int(rng.integers(1, min_size + 1))
        may_insert = limiter.blocks_insert(table.size, inserted, sampled, chunk) is None
        may_sample = limiter.blocks_sample(table.size, inserted, sampled, batch) is None and table.draws_left >= batch
        assert may_insert or may_sample
        if may_insert and (not may_sample or rng.random() < 0.5):
            table.insert(np.zeros((chunk, SPEC.record_size), np.uint8))
            inserted += chunk
        else:
            table.sample([batch])
            sampled += batch


def test_the_law_of_the_queue_is_exact():
    limiter = RateLimiter.queue(10)
    assert limiter.blocks_insert(7, 100, 0.0, 3) is None
    assert limiter.blocks_insert(7, 100, 0.0, 4) == "samples"
    assert limiter.blocks_sample(3, 0, 1e9, 3) is None
    assert limiter.blocks_sample(3, 0, 1e9, 4) == "inserts"
    assert limiter.blocks_sample(0, 0, 0.0, 0) is None
    for ask in (limiter.blocks_insert, limiter.blocks_sample):
        with pytest.raises(InvalidRecord, match="11 records at once, the queue holds 10"):
            ask(0, 0, 0.0, 11)


@settings(max_examples=100, deadline=None)
@given(
    queue_size=st.integers(1, 60),
    lengths=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    sampler=st.sampled_from(["fifo", "lifo"]),
    seed=st.integers(0, 9),
)
def test_a_queue_holds_its_bound_and_stands_still_for_no_chunk_and_batch_that_fit_together(
    queue_size, lengths, sampler, seed
):
    limiter = RateLimiter.queue(queue_size)
    chunk = 1 + int(lengths[0] * (queue_size - 1))
    batch = 1 + int(lengths[1] * (queue_size - chunk))
    table = Table(SPEC, queue_size, sampler=sampler, max_times_sampled=1)
    limiter.check_table(table.capacity, 1)
    rng = np.random.default_rng(seed)
    inserted = sampled = 0
    for step in range(60):
        count, wanted = int(rng.integers(1, chunk + 1)), int(rng.integers(1, batch + 1))
        may_insert = limiter.blocks_insert(table.size, inserted, sampled, count) is None
        may_sample = limiter.blocks_sample(table.size, inserted, sampled, wanted) is None
        assert may_insert or may_sample
        assert may_insert is (inserted + count - sampled <= queue_size)
        assert may_sample is (inserted - sampled >= wanted)
        if may_insert and (not may_sample or rng.random() < 0.5):
            table.insert(np.zeros((count, SPEC.record_size), np.uint8))
            inserted += count
        else:
            table.sample([wanted])
            sampled += wanted
        if step == 30:  # what is cleared has left the queue
            table.clear()
            inserted = sampled


@pytest.mark.parametrize(
    ("limiter", "capacity", "limit", "words"),
    [
        (RateLimiter(11), 10, None, "min_size is 11, capacity is 10"),
        (RateLimiter.queue(10), 10, None, "queue_size needs max_times_sampled 1"),
        (RateLimiter.queue(10), 10, 2, "queue_size needs max_times_sampled 1"),
        (RateLimiter.queue(11), 10, 1, "queue_size is 11, capacity is 10"),
        (RateLimiter(1, 2.5), 10, 2, "samples_per_insert is 2.5, max_times_sampled is 2"),
    ],
)
def test_a_table_with_which_both_sides_could_wait_for_ever_is_refused(limiter, capacity, limit, words):
    with pytest.raises(ConfigError, match=words):
        limiter.check_table(capacity, limit)
    with pytest.raises(ConfigError, match=words):
        Shard(Table(SPEC, capacity, max_times_sampled=limit), limiter)


def test_tables_that_go_with_their_limiter():
    RateLimiter(10).check_table(10, None)
    RateLimiter.queue(10).check_table(10, 1)
    RateLimiter(1, 2.0).check_table(10, 2)


def _simulate(inserters, masses, steps, batch=32, ratio=4.0, min_size=50, chunk=8, seed=0):
    """Shards behind limiters, a client that credits them, writers by probability; counts of inserts and batches."""
    rng = np.random.default_rng(seed)
    count = len(inserters)
    limiter = RateLimiter(min_size, ratio, 20.0)
    views = ShardViews([min_size] * count)
    inserted, sampled = np.zeros(count, int), np.zeros(count)
    batches = starved = 0
    for step in range(steps):
        for j in range(count):
            if (
                rng.random() < inserters[j](step)
                and limiter.blocks_insert(inserted[j], inserted[j], sampled[j], 1) is None
            ):
                inserted[j] += chunk
            views.see(j, View(masses[j] * inserted[j], inserted[j], inserted[j], sampled[j]))
        if not any(views.open):
            continue
        credits = np.array(views.credits(batch))
        assert credits.sum() == pytest.approx(batch)
        assert (credits >= 0).all()
        blocked = any(
            credits[j] > 0 and limiter.blocks_sample(inserted[j], inserted[j], sampled[j], 1) for j in range(count)
        )
        starved = starved + 1 if blocked else 0
        if not blocked:
            sampled += credits
            batches += 1
    return inserted, sampled, batches, starved


def test_credits_follow_the_inserts_not_the_mass():
    inserted, sampled, batches, _ = _simulate([lambda _: 0.9, lambda _: 0.3], masses=[0.01, 50.0], steps=4000)
    assert batches > 500
    np.testing.assert_allclose(sampled, 4.0 * (inserted - 50), rtol=0.1)


def test_a_shard_whose_writers_stopped_does_not_block():
    inserted, _, batches, starved = _simulate(
        [lambda _: 0.9, lambda step: 0.9 if step < 500 else 0.0], masses=[1.0, 1.0], steps=6000
    )
    assert starved < 100
    assert batches > 1000
    assert inserted[0] > 8 * inserted[1]


def test_a_shard_that_joins_late_does_not_block():
    _, _, batches, starved = _simulate(
        [lambda _: 0.9, lambda step: 0.0 if step < 3000 else 0.9], masses=[1.0, 1.0], steps=6000
    )
    early = _simulate([lambda _: 0.9, lambda _: 0.0], masses=[1.0, 1.0], steps=3000)[2]
    assert starved < 100
    assert batches > 2 * early
