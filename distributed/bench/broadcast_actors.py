"""Weights on their way from a learner to actors: real Ray actors with the weight store between them, and no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

from distributed.identity import Identity
from distributed.processes import Role
from distributed.ray_processes import RayProcesses
from distributed.ray_session import get
from distributed.ray_weights import FETCHED, PUBLISHER_OPTIONS, RayWeightSink, RayWeightSource, WeightStore
from learners.weights import WeightSnapshot

_PIECE = 1_000_000
_STEP_S = 0.005  # of an actor between two looks for weights
_START_S = 600.0
_ANSWER_S = 120.0
_SETTLE_S = 0.05
_SETTLE_EACH_S = 0.002  # until every actor is acting


class Sending(NamedTuple):
    """Milliseconds from the call that publishes until each actor acts with the weights; and of that call itself."""

    latency_ms: list[float]
    publish_ms: list[float]


class Publisher:
    """A learner that only publishes."""

    RAY_OPTIONS = PUBLISHER_OPTIONS

    def begin(self, store: Any) -> None:
        self._sink = RayWeightSink(store)

    def resize(self, size: int) -> None:
        """Weights of so many bytes from now on."""
        self._blob = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

    def publish(self, version: int, after_s: float) -> tuple[float, float]:
        """When publishing was called, and for how many seconds."""
        time.sleep(after_s)
        snapshot = WeightSnapshot(version, (), self._blob)
        begin = time.monotonic()
        self._sink.publish(snapshot)
        return begin, time.monotonic() - begin

    @ray.method(concurrency_group=FETCHED, num_returns=2)
    def fetch_weights(self) -> tuple[int, WeightSnapshot]:
        return self._sink.fetched()


class Reader:
    """An actor whose steps are pauses, so that many fit on one machine; it copies all weights, as a policy does.

    The copy is made piece by piece into one small buffer: 64 actors with 100 MB each are more than a laptop has.
    """

    def begin(self, store: Any) -> None:
        self._source, self._version = RayWeightSource(store), 0
        self._piece: NDArray[np.uint8] = np.zeros(_PIECE, np.uint8)

    def act(self, version: int) -> float:
        """When it first acted with this version or a newer one."""
        deadline = time.monotonic() + _ANSWER_S
        while time.monotonic() < deadline:
            if (snapshot := self._source.latest(self._version)) is not None:
                for start in range(0, len(snapshot.blob), _PIECE):
                    piece = snapshot.blob[start : start + _PIECE]
                    np.copyto(self._piece[: len(piece)], piece)
                self._version = snapshot.version
                if self._version >= version:
                    return time.monotonic()
            time.sleep(_STEP_S)
        raise TimeoutError(f"version {version} has not come")


class Broadcast:
    """A publisher, a weight store and as many readers as were asked for so far; Ray is there."""

    def __init__(self, processes: RayProcesses) -> None:
        self._processes = processes
        self._store = processes.spawn(WeightStore, Role.STORE, Identity("bench", Path(), Role.STORE))
        self._publisher = processes.spawn(Publisher, Role.EVALUATOR)
        self._readers: list[Any] = []
        self._version = 0
        get(self._publisher.begin.remote(self._store), _START_S, "the publisher")

    def resize(self, size: int) -> None:
        """Weights of so many bytes from now on."""
        get(self._publisher.resize.remote(size), _ANSWER_S, "the publisher")

    def grow(self, actors: int) -> None:
        """Have so many readers."""
        fresh = [self._processes.spawn(Reader, Role.EVALUATOR) for _ in range(actors - len(self._readers))]
        get([reader.begin.remote(self._store) for reader in fresh], _START_S, "an actor")
        self._readers += fresh

    def measure(self, actors: int, versions: int) -> Sending:
        """So many versions to the first `actors` readers, each when the one before has arrived; one more to warm up."""
        sending = Sending([], [])
        for turn in range(versions + 1):
            self._version += 1
            acting = [reader.act.remote(self._version) for reader in self._readers[:actors]]
            after_s = _SETTLE_S + _SETTLE_EACH_S * actors
            begin, took = get(self._publisher.publish.remote(self._version, after_s), _ANSWER_S, "the publisher")
            seen = get(acting, 2 * _ANSWER_S, "an actor")
            if turn:
                sending.latency_ms.extend(1e3 * (moment - begin) for moment in seen)
                sending.publish_ms.append(1e3 * took)
        return sending


def limit_ms(size: int, turns: int) -> float:
    """What one actor can't be faster than: into the object store, out of it, and into its own memory; the median."""
    blob, mine = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8), np.zeros(size, np.uint8)
    taken = []
    for _ in range(turns):
        begin = time.perf_counter()
        np.copyto(mine, ray.get(ray.put(blob)))
        taken.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(taken))
