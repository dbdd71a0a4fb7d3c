"""Weights from a publisher in one Ray actor to readers in others: the newest arrives, nobody waits for anybody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from distributed.config_loading import find_config
from distributed.identity import Identity
from distributed.loading import load_experiment
from distributed.processes import Role
from distributed.ray_processes import RayProcesses
from distributed.ray_session import start_ray
from distributed.ray_weights import (
    FETCHED,
    PUBLISHER_OPTIONS,
    RayWeightSink,
    RayWeightSource,
    WeightStore,
)
from learners.weights import WeightSnapshot

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SECONDS = 120.0
SIZE = 1_000_000


class Publisher:
    """Publishes blobs that are full of their version."""

    RAY_OPTIONS = PUBLISHER_OPTIONS

    def begin(self, store: Any) -> None:
        self._sink = RayWeightSink(store)
        self._fetches = 0

    def publish(self, first: int, count: int) -> float:
        """So many versions, one right after the other; the longest that one took."""
        longest = 0.0
        for version in range(first, first + count):
            snapshot = WeightSnapshot(version, (), np.full(SIZE, version % 251, np.uint8))
            begin = time.monotonic()
            self._sink.publish(snapshot)
            longest = max(longest, time.monotonic() - begin)
        return longest

    def hang(self) -> None:
        time.sleep(3600.0)

    def newest_version(self) -> int:
        return self._sink.newest_version(0)

    def fetches(self) -> int:
        return self._fetches

    @ray.method(concurrency_group=FETCHED, num_returns=2)
    def fetch_weights(self) -> tuple[int, WeightSnapshot]:
        self._fetches += 1
        return self._sink.fetched()


@pytest.fixture(scope="module")
def processes() -> Iterator[RayProcesses]:
    config = load_experiment(find_config("cartpole_dqn"), ()).config
    start_ray(config)
    yield RayProcesses(config, private=True)
    ray.shutdown()


@pytest.fixture
def store(processes: RayProcesses) -> Iterator[Any]:
    store = processes.spawn(WeightStore, Role.STORE, Identity("test", Path(), Role.STORE))
    yield store
    ray.kill(store)


@pytest.fixture
def publisher(processes: RayProcesses, store: Any) -> Iterator[Callable[[], Any]]:
    made = []

    def make() -> Any:
        publisher = processes.spawn(Publisher, Role.EVALUATOR)
        made.append(publisher)
        ray.get(publisher.begin.remote(store), timeout=SECONDS)
        return publisher

    yield make
    for one in made:
        ray.kill(one)


def wait_for(source: RayWeightSource, version: int, newer_than: int = 0) -> WeightSnapshot:
    """Until the source has this version, which is the newest."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        snapshot = source.latest(newer_than)
        if snapshot is not None:
            assert snapshot.version > newer_than
            assert (snapshot.blob == snapshot.version % 251).all() and len(snapshot.blob) == SIZE
            newer_than = snapshot.version
            if newer_than == version:
                return snapshot
        time.sleep(0.001)
    raise AssertionError(f"version {version} has not come, only {newer_than}")


def test_the_newest_version_reaches_every_reader_while_the_publisher_does_something_else(
    store: Any, publisher: Callable[[], Any]
) -> None:
    sources, one = [RayWeightSource(store) for _ in range(3)], publisher()
    assert [source.latest(0) for source in sources] == [None] * 3
    ray.get(one.publish.remote(1, 40), timeout=SECONDS)
    one.hang.remote()  # nobody inserts, it waits for samples: what was published goes out none the less
    for source in sources:
        wait_for(source, 40)
        assert source.latest(40) is None


def test_versions_are_skipped_where_the_store_is_slow_and_the_publisher_does_not_wait(
    store: Any, publisher: Callable[[], Any]
) -> None:
    source, one = RayWeightSource(store), publisher()
    pid = ray.get(store.__ray_call__.remote(lambda _: os.getpid()), timeout=SECONDS)
    ray.get(one.publish.remote(1, 1), timeout=SECONDS)
    wait_for(source, 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert ray.get(one.publish.remote(2, 200), timeout=SECONDS) < SECONDS / 2
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(source, 201, newer_than=1)
    assert ray.get(one.fetches.remote(), timeout=SECONDS) < 100


def test_weights_survive_their_publisher_and_the_next_one_goes_on_above(
    store: Any, publisher: Callable[[], Any]
) -> None:
    first = publisher()
    ray.get(first.publish.remote(1, 7), timeout=SECONDS)
    wait_for(RayWeightSource(store), 7)
    ray.kill(first)
    wait_for(RayWeightSource(store), 7)
    second = publisher()
    assert ray.get(second.newest_version.remote(), timeout=SECONDS) == 7
    ray.get(second.publish.remote(8, 1), timeout=SECONDS)
    wait_for(RayWeightSource(store), 8)


def test_a_publisher_that_ends_before_its_version_was_fetched_leaves_room_for_the_next(
    store: Any, publisher: Callable[[], Any]
) -> None:
    first, second = publisher(), publisher()
    ray.get(first.publish.remote(1, 1), timeout=SECONDS)
    wait_for(RayWeightSource(store), 1)
    ray.kill(first)
    store.announce.remote(5, first)  # its last words
    ray.get(second.publish.remote(3, 1), timeout=SECONDS)
    wait_for(RayWeightSource(store), 3, newer_than=1)


def test_more_readers_wait_than_ray_lets_call_by_itself(store: Any, publisher: Callable[[], Any]) -> None:
    waiting = [store.wait_newer.remote(0, SECONDS) for _ in range(1_500)]
    ray.get(publisher().publish.remote(1, 1), timeout=SECONDS)
    assert all(len(answer) == 1 for answer in ray.get(waiting, timeout=SECONDS))
