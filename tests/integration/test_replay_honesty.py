"""Sharded prioritized sampling is what one large table would do, also while everything moves."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from replay_server import Field, RecordSpec, connect, start_server
from replay_server.client import ReplayClient
from replay_server.local import LocalShard
from replay_server.shard import Shard
from replay_server.sharding import mass_shares
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"), Field("value", "float64")))
RECORDS = 140


def rows(numbers, values=None):
    numbers = np.asarray(numbers, np.int64)
    return {"number": numbers, "value": np.asarray(numbers if values is None else values, np.float64)}


def uniform_shares(masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mistake of choosing a shard without looking at its mass."""
    return (masses > 0) / np.count_nonzero(masses)


def unequal_shards(count):
    """Shards of very different size and mass, and the exact probability of each number."""
    rng = np.random.default_rng(count)
    priorities = rng.random(RECORDS) * 3.0 + 0.05
    owner = rng.choice(count, RECORDS, p=np.arange(1, count + 1) ** 2 / np.sum(np.arange(1, count + 1) ** 2))
    priorities *= 1.0 + 2.0 * owner
    shards = []
    for index in range(count):
        table = Table(SPEC, RECORDS, priority_exponent=0.6, sampler="multinomial", seed=20 + index, shard=index)
        mine = np.flatnonzero(owner == index)
        table.insert(SPEC.pack(rows(mine)), priorities[mine])
        shards.append(Shard(table))
    mass = priorities**0.6
    return shards, mass / mass.sum()


def p_value(shards, exact, shares):
    client = ReplayClient([LocalShard(shard) for shard in shards], seed=3, shares=shares)
    seen = np.zeros(RECORDS)
    for _ in range(400):
        seen += np.bincount(client.sample(128).columns["number"], minlength=RECORDS)
    return stats.chisquare(seen, exact * seen.sum()).pvalue


@pytest.mark.parametrize("count", [1, 2, 7])
def test_frequencies_are_those_of_one_table(count):
    assert p_value(*unequal_shards(count), mass_shares) > 0.01


@pytest.mark.parametrize("count", [2, 7])
def test_uniformly_chosen_shards_would_be_noticed(count):
    assert p_value(*unequal_shards(count), uniform_shares) < 1e-6


@pytest.mark.parametrize("count", [1, 2, 7])
def test_stated_probabilities_are_right_even_for_wrongly_chosen_shards(count):
    """The weighted mean of any value is unbiased whatever the shares, because the draw actually made is stated."""
    shards, _ = unequal_shards(count)
    client = ReplayClient([LocalShard(shard) for shard in shards], seed=4, shares=uniform_shares)
    estimates = []
    for _ in range(300):
        batch = client.sample(128)
        estimates.append(np.mean(batch.columns["value"] / (batch.table_size * batch.probabilities)))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - (RECORDS - 1) / 2) < 3 * error


VALUES = np.array([0.0, 1.0, 5.0])
MEAN = 2.0


def _disturb(addresses: list[str], seed: int, stop: threading.Event) -> None:
    """Change priorities tenfold, by value, and insert more of the same mixture of values."""
    rng = np.random.default_rng(seed)
    with connect(addresses, prefetch=0, seed=seed) as other:
        while not stop.is_set():
            batch = other.sample(256)
            factor = 10.0 ** rng.uniform(0.0, 1.0) * rng.choice([0.1, 1.0])
            other.update_priorities(batch.keys, (1.0 + batch.columns["value"]) * factor)
            other.insert(rows(range(30), np.tile(VALUES, 10)), np.full(30, 10.0 ** rng.uniform(-1.0, 1.0)))


def _sample_while_disturbed(shards: int, prefetch: int, seed: int) -> tuple[NDArray[np.float64], float, float]:
    """Per batch (mean w v, mean w, mean v); the largest deviation of shares; records inserted meanwhile."""
    servers = [start_server(SPEC, 50_000, seed=seed + i, shard_index=i) for i in range(shards)]
    addresses = [server.address for server in servers]
    stop = threading.Event()
    thread = threading.Thread(target=_disturb, args=(addresses, seed + 1, stop))
    rows_seen, deviations = [], []
    try:
        with connect(addresses, prefetch=prefetch, seed=seed) as replay:
            for index in range(shards):
                count = 3000 * (index + 1)
                replay.insert(rows(range(count), np.tile(VALUES, count // 3)), np.tile(1.0 + VALUES, count // 3))
            before = replay.stats().inserted
            thread.start()
            for _ in range(600):
                batch = replay.sample(256)
                value = batch.columns["value"]
                weights = 1.0 / (batch.table_size * batch.probabilities)
                rows_seen.append((np.mean(weights * value), np.mean(weights), np.mean(value)))
                deviations.append(replay.share_deviation)
            stop.set()
            thread.join(30)
            inserted = replay.stats().inserted - before
        for server in servers:
            server.shard.check_valid()
    finally:
        stop.set()
        for server in servers:
            server.stop(0.1)
    return np.array(rows_seen), max(deviations), inserted


@pytest.mark.integration
@pytest.mark.parametrize(("shards", "prefetch"), [(2, 0), (3, 8)])
def test_weighted_mean_is_the_uniform_mean_while_priorities_move(shards, prefetch):
    """Another client changes priorities tenfold and inserts; the beta = 1 weighted mean stays the uniform mean.

    Threads make every run another one, so one run in 370 would miss by 3 standard errors by chance alone: such a run
    is repeated once. A wrong weight misses by far more, every time.
    """
    for seed in (2, 102):
        seen, deviation, inserted = _sample_while_disturbed(shards, prefetch, seed)
        assert deviation > 0.0
        assert inserted > 300
        assert abs(seen[:, 2].mean() - MEAN) > 0.2  # unweighted it is far off: the test has something to see
        estimate = seen[:, 0].sum() / seen[:, 1].sum()
        error = np.std(seen[:, 0] - estimate * seen[:, 1]) / np.sqrt(len(seen)) / seen[:, 1].mean()
        if abs(estimate - MEAN) < 3 * error:
            return
    pytest.fail(f"weighted mean {estimate:.4f} +- {error:.4f}, the uniform mean is {MEAN}")
