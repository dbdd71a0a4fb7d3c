"""What Ray's part of a run costs: the driver's looks and reports, the weight store's versions and answers."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import ray
from msgspec.structs import replace

from distributed.config import ExperimentConfig
from distributed.identity import Identity
from distributed.processes import Role
from distributed.ray_processes import RayProcesses
from distributed.ray_session import start_ray
from distributed.ray_weights import FETCHED, PUBLISHER_OPTIONS, RayWeightSink, WeightStore
from learners.weights import WeightSnapshot

_START_S = 120.0
_PENDING = 64


class RayCosts(NamedTuple):
    """Processor seconds: of the learner that sends a version, of the store, of the driver; see `ServiceTimes`."""

    send_s: float
    store_publish_s: float
    store_answer_s: float
    look_s: float
    report_s: float


class _Store(WeightStore):
    """The weight store, which also says what it has used."""

    async def cpu_s(self) -> float:
        return time.process_time()


class _Learner:
    """Publishes, as soon as the store has the version before."""

    RAY_OPTIONS = PUBLISHER_OPTIONS

    def begin(self, store: Any, snapshot: WeightSnapshot) -> None:
        self._sink, self._snapshot, self._fetched = RayWeightSink(store), snapshot, threading.Event()

    def publish(self, seconds: float) -> tuple[int, float]:
        """Versions, and processor seconds that each took here."""
        count, used, end = 0, time.process_time(), time.perf_counter() + seconds
        while not count or time.perf_counter() < end:
            count += 1
            self._fetched.clear()
            self._sink.publish(dataclasses.replace(self._snapshot, version=count))
            self._fetched.wait(_START_S)
        return count, time.process_time() - used

    @ray.method(concurrency_group=FETCHED, num_returns=2)
    def fetch_weights(self) -> tuple[int, WeightSnapshot]:
        self._fetched.set()
        return self._sink.fetched()


class _Worker:
    """Answers at once, as long a list as a report is."""

    def run(self, seconds: float) -> list[float]:
        return [seconds] * 16


def ray_costs(config: ExperimentConfig, snapshot: WeightSnapshot, seconds: float) -> RayCosts:
    """Measured on a Ray of this process's own.

    Args:
        config: of the run; what it says of a cluster does not count.
        snapshot: as large as the run's are.
        seconds: to spend on each of three parts.
    """
    config = replace(config, ray=replace(config.ray, address="local"))
    owned = start_ray(config)
    try:
        processes = RayProcesses(config, private=True)
        store = processes.spawn(_Store, Role.STORE, Identity("measured", Path(), Role.STORE))
        worker = processes.spawn(_Worker, Role.ACTOR)
        ray.get(store.cpu_s.remote(), timeout=_START_S)
        ray.get(worker.run.remote(0.0), timeout=_START_S)
        send_s, publish_s = _publishing(processes, store, snapshot, seconds)
        answer_s = _answering(store, seconds)
        return RayCosts(send_s, publish_s, answer_s, _looking(processes, store, seconds), _reporting(worker, seconds))
    finally:
        if owned:
            ray.shutdown()


def _cpu_s(store: Any) -> float:
    used: float = ray.get(store.cpu_s.remote(), timeout=_START_S)
    return used


def _publishing(processes: RayProcesses, store: Any, snapshot: WeightSnapshot, seconds: float) -> tuple[float, float]:
    learner = processes.spawn(_Learner, Role.EVALUATOR)
    ray.get(learner.begin.remote(store, snapshot), timeout=_START_S)
    theirs = _cpu_s(store)
    count, ours = ray.get(learner.publish.remote(seconds))
    return ours / count, (_cpu_s(store) - theirs) / count


def _answering(store: Any, seconds: float) -> float:
    count, theirs, end = 0, _cpu_s(store), time.perf_counter() + seconds
    while not count or time.perf_counter() < end:
        ray.get(ray.get(store.wait_newer.remote(0, 1.0))[0])
        count += 1
    return (_cpu_s(store) - theirs) / count


def _looking(processes: RayProcesses, store: Any, seconds: float) -> float:
    """A turn of the driver over calls that have not been answered."""
    calls = [store.wait_newer.remote(1 << 40, 2.0 * seconds + 1.0) for _ in range(_PENDING)]
    count, begin, end = 0, time.process_time(), time.perf_counter() + seconds
    while not count or time.perf_counter() < end:
        processes.look(calls, 0.0)
        for call in calls:
            processes.done(call)
        count += 1
    return (time.process_time() - begin) / count / _PENDING


def _reporting(worker: Any, seconds: float) -> float:
    count, begin, end = 0, time.process_time(), time.perf_counter() + seconds
    while not count or time.perf_counter() < end:
        ray.get(worker.run.remote(0.2))
        count += 1
    return (time.process_time() - begin) / count
