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
        table = Table(SPEC, RECORDS, priority_exponent=0.6, seed=20 + index, shard=index)
        mine = np.flatnonzero(owner == index)
        table.insert(SPEC.pack(rows(mine)), priorities[mine])
        shards.append(Shard(table, sampler="multinomial"))
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


@pytest.mark.integration
@pytest.mark.parametrize(("shards", "prefetch"), [(2, 0), (2, 8), (3, 4)])
def test_weighted_mean_is_the_uniform_mean_while_priorities_move(shards, prefetch):
    """Another client changes priorities tenfold and inserts all the time; the values' mean stays what it is.

    Records of value v come in a fixed mixture, so the uniform mean is the same however many there are, and priorities
    depend on the value: an unweighted mean would be far off.
    """
    servers = [start_server(SPEC, 50_000, seed=i, shard_index=i) for i in range(shards)]
    addresses = [server.address for server in servers]
    values = np.array([0.0, 1.0, 5.0])  # mean 2
    stop = threading.Event()

    def disturb():
        with connect(addresses, prefetch=0, seed=8) as other:
            rng = np.random.default_rng(1)
            while not stop.is_set():
                batch = other.sample(256)
                value = batch.columns["value"]
                other.update_priorities(
                    batch.keys, (1.0 + value) * 10.0 ** rng.uniform(0.0, 1.0) * rng.choice([0.1, 1])
                )
                other.insert(rows(range(30), np.tile(values, 10)), np.full(30, 10.0 ** rng.uniform(-1.0, 1.0)))

    try:
        with connect(addresses, prefetch=prefetch, seed=2) as replay:
            for index in range(shards):
                count = 3000 * (index + 1)
                replay.insert(rows(range(count), np.tile(values, count // 3)), np.tile(1.0 + values, count // 3))
            thread = threading.Thread(target=disturb)
            thread.start()
            try:
                weighted, plain, deviations = [], [], []
                for _ in range(600):
                    batch = replay.sample(256)
                    value = batch.columns["value"]
                    weights = 1.0 / (batch.table_size * batch.probabilities)
                    weighted.append((np.mean(weights * value), np.mean(weights)))
                    plain.append(value.mean())
                    deviations.append(replay.share_deviation)
            finally:
                stop.set()
                thread.join(30)
        inserted = sum(server.shard.stats().inserted for server in servers)
        for server in servers:
            server.shard.check_valid()
    finally:
        for server in servers:
            server.stop(0.1)
    tops, bottoms = np.array(weighted).T
    for estimates, truth in ((tops, 2.0), (bottoms, 1.0)):
        error = np.std(estimates) / np.sqrt(len(estimates))
        assert abs(estimates.mean() - truth) < 3 * error
    assert np.mean(plain) > 2.2  # the test would notice missing weights
    assert max(deviations) > 0.0
    assert inserted > 3000 * shards * (shards + 1) // 2 + 300
