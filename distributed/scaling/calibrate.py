"""Measures the service times of a config here: each part by itself, in processor time, a few seconds each.

Processor time is what the model spends; other work on the machine moves it far less than time on the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from actors.seeds import derive
from distributed.bench.shards import ServedShard
from distributed.build import (
    make_actor_loop,
    make_learner,
    make_spec,
    make_task,
    shard_capacity,
    shard_limiter,
    shard_sampling,
)
from distributed.config import ExperimentConfig
from distributed.scaling.ray_costs import RayCosts, ray_costs
from distributed.scaling.system import Cost, ServiceTimes, System
from distributed.shard_process import ShardProcess
from distributed.stages import Stages
from learners.task import Task
from learners.weights import WeightSlot, WeightSnapshot
from replay_server import connect
from replay_server.batches import SampleBatch
from replay_server.replay import Ack, Rows
from replay_server.shard_config import ShardConfig, SpecConfig
from replay_server.specs import RecordSpec

_TURNS = 5
_POOL = 32
_STOP_S = 10.0


def calibrate(config: ExperimentConfig, system: System, seconds: float, stages: Stages) -> ServiceTimes:
    """What everything costs in this process, in a shard's process and under a private Ray.

    Args:
        config: of the run; its learner is measured on the CPU, with one thread.
        system: the same as the model sees it.
        seconds: to spend on each part.

    Raises:
        WorkerDied: the shard or Ray did not start.
    """
    torch.set_num_threads(1)
    task = make_task(config)
    spec = make_spec(config, task)
    with stages.stage("measuring an actor"):
        acting = _acting(config, task, spec, seconds)
    with stages.stage("measuring a shard"):
        served = _serving(config, system, spec, acting.records, seconds)
    with stages.stage("measuring the learner"):
        update_s, snapshot_s, load_s, snapshot = _learning(config, task, spec, served.batches, seconds)
    with stages.stage("measuring Ray"):
        costs: RayCosts = ray_costs(config, snapshot, seconds)
    return ServiceTimes(
        vector_step_s=acting.vector_step_s,
        load_s=load_s,
        insert_client=served.insert_client,
        insert_shard=served.insert_shard,
        sample_client=served.sample_client,
        sample_shard=served.sample_shard,
        update_s=update_s,
        snapshot_s=snapshot_s + costs.send_s,
        weight_bytes=snapshot.blob.nbytes,
        record_bytes=spec.record_size,
        store_publish_s=costs.store_publish_s,
        store_answer_s=costs.store_answer_s,
        driver_look_s=costs.look_s,
        driver_report_s=costs.report_s,
    )


def each(step: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Seconds of `clock` that one step takes: the median of five turns, after a first one that does not count."""
    turns = []
    for _ in range(_TURNS + 1):
        count, begin, end = 0, clock(), time.perf_counter() + seconds / _TURNS
        while not count or time.perf_counter() < end:
            step()
            count += 1
        turns.append((clock() - begin) / count)
    return median(turns[1:])


class _Acting(NamedTuple):
    vector_step_s: float
    records: NDArray[np.uint8]


class _Keeper:
    """Takes an actor's records and keeps the newest of them. Implements `replay.Writer`."""

    def __init__(self, spec: RecordSpec, most: int) -> None:
        self._spec, self._most = spec, most
        self._kept: list[Mapping[str, NDArray[Any]]] = []
        self.acknowledged = 0

    def append(self, rows: Rows, priorities: NDArray[np.float64] | None = None, *, timeout_s: float = 5.0) -> None:
        assert not isinstance(rows, np.ndarray)
        self._kept.append(rows)
        self.acknowledged += len(rows["reward"])
        while len(self._kept) > 1 and sum(len(kept["reward"]) for kept in self._kept[1:]) >= self._most:
            del self._kept[0]

    def flush(self, *, timeout_s: float = 5.0) -> Ack:
        return Ack(self.acknowledged, 0, 0, "checkpoint")

    def close(self) -> None:
        pass

    def packed(self) -> NDArray[np.uint8]:
        return np.concatenate([self._spec.pack(kept) for kept in self._kept])


def _acting(config: ExperimentConfig, task: Task, spec: RecordSpec, seconds: float) -> _Acting:
    keeper = _Keeper(spec, 4 * config.algorithm.batch_size)
    loop = make_actor_loop(config, task, 0, keeper, WeightSlot(), time.monotonic)
    loop.begin(derive(config.run.seed, "actor", 0), env_steps=0)
    try:
        vector_step_s = each(lambda: loop.step(0.0), seconds, time.process_time)
        while keeper.acknowledged < config.algorithm.batch_size:
            loop.step(0.0)
    finally:
        loop.close()
    return _Acting(vector_step_s, keeper.packed())


class _Served(NamedTuple):
    insert_client: Cost
    insert_shard: Cost
    sample_client: Cost
    sample_shard: Cost
    batches: list[SampleBatch]


def _serving(
    config: ExperimentConfig, system: System, spec: RecordSpec, records: NDArray[np.uint8], seconds: float
) -> _Served:
    """Both sides of calls of two sizes each, over the transport that a run on this machine would use."""
    law = shard_limiter(config)
    with tempfile.TemporaryDirectory(prefix="headrace-scaling-") as directory:
        shard_config = ShardConfig(
            address="127.0.0.1:0",
            spec=SpecConfig.of(spec),
            capacity=shard_capacity(config),
            **shard_sampling(config)._asdict(),
            durability=config.replay.durability,
            directory=directory,
        )
        file = Path(directory) / "shard.yaml"
        file.write_text(yaml.safe_dump(msgspec.to_builtins(shard_config)))
        process = ShardProcess(file)
        try:
            shard = ServedShard(process.address, Path(directory), process.pid)
            few, many = system.chunk, 8 * system.chunk
            inserts = [_inserting(shard, records, rows, config, seconds) for rows in (few, many)]
            _fill(shard, records, law.min_size)
            batch = config.algorithm.batch_size
            samples, batches = [], []
            for together in (1, 4):
                costs, drawn = _sampling(shard, batch, together, config, seconds)
                samples.append(costs)
                batches = drawn
        finally:
            process.stop(_STOP_S)
    return _Served(
        Cost.through((few, inserts[0][0]), (many, inserts[1][0])),
        Cost.through((few, inserts[0][1]), (many, inserts[1][1])),
        Cost.through((batch, samples[0][0]), (4 * batch, 4 * samples[1][0])),
        Cost.through((batch, samples[0][1]), (4 * batch, 4 * samples[1][1])),
        batches,
    )


def _both(shard: ServedShard, step: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Processor seconds of a step here and in the shard; the shard's clock ticks in hundredths, so all turns count."""
    for _ in range(8):
        step()
    count, ours, theirs, end = 0, time.process_time(), shard.cpu_s, time.perf_counter() + seconds
    while not count or time.perf_counter() < end:
        step()
        count += 1
    return (time.process_time() - ours) / count, (shard.cpu_s - theirs) / count


def _inserting(
    shard: ServedShard, records: NDArray[np.uint8], rows: int, config: ExperimentConfig, seconds: float
) -> tuple[float, float]:
    chunk = np.resize(records, (rows, records.shape[1]))
    with connect([shard.address], transport=config.replay.transport) as replay:
        columns = {name: np.array(column) for name, column in replay.spec.columns(chunk).items()}
        writer = replay.writer(max_in_flight=1, gather_rows=rows)
        costs = _both(shard, lambda: writer.append(columns, np.ones(rows), timeout_s=60.0), seconds)
        writer.close()
    return costs


def _fill(shard: ServedShard, records: NDArray[np.uint8], least: int) -> None:
    with connect([shard.address]) as replay:
        while replay.stats().size < least:
            replay.insert(records, np.random.default_rng(0).exponential(size=len(records)))


def _sampling(
    shard: ServedShard, batch_size: int, together: int, config: ExperimentConfig, seconds: float
) -> tuple[tuple[float, float], list[SampleBatch]]:
    """Batches with priorities given back, asked for so many together."""
    priorities = np.random.default_rng(1).exponential(size=batch_size)
    batches: list[SampleBatch] = []
    with connect([shard.address], transport=config.replay.transport, prefetch=2 * together) as replay:

        def step() -> None:
            batch = replay.sample(batch_size)
            replay.update_priorities(batch.keys, priorities)
            if len(batches) < _POOL:  # copies: what is kept would keep its message
                records, keys = np.array(batch.records), np.array(batch.keys)
                probabilities = np.array(batch.probabilities)
                batches.append(SampleBatch(batch.spec, records, keys, probabilities, batch.table_size, batch.inserted))

        for _ in range(_POOL):
            step()
        costs = _both(shard, step, seconds)
    return costs, batches


def _learning(
    config: ExperimentConfig, task: Task, spec: RecordSpec, batches: list[SampleBatch], seconds: float
) -> tuple[float, float, float, WeightSnapshot]:
    learner = make_learner(config, task, spec, seed=derive(config.run.seed, "learner"), device="cpu")
    pool = cycle(batches)
    update_s = each(lambda: learner.step(next(pool)), seconds, time.process_time)
    learner.take_metrics()
    snapshot_s = each(learner.snapshot, seconds / 4, time.process_time)
    snapshot = learner.snapshot()
    policy = config.algorithm.make_policy(task, env_indices=range(1), total_envs=1)
    return update_s, snapshot_s, each(lambda: policy.load(snapshot), seconds / 4, time.process_time), snapshot
