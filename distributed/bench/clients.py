"""What the client does in each measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from distributed.bench.notebook import Measure, Notebook, rate
from distributed.bench.rows import GRPC, SHM
from distributed.bench.shards import ServedShard
from distributed.bench.workload import BATCH, Workload
from replay_server.client import ReplayClient
from replay_server.connecting import connect
from replay_server.errors import ReplayError, Unavailable

_FLUSH_S = 60.0
_PREFETCH = {"8": 64, "128": 16, "images": 4}
"""Batches asked for ahead, half of them in one call: 3.4 MB, 8.7 MB and 116 MB."""


def open_replay(shards: Sequence[ServedShard], work: Workload, transport: str, prefetch: int = -1) -> ReplayClient:
    """A client over the named transport and no other.

    Raises:
        Unavailable: this transport cannot be had.
    """
    name = {GRPC: "grpc", SHM: "shm"}[transport]
    ahead = _PREFETCH[work.name] if prefetch < 0 else prefetch
    replay = connect([shard.address for shard in shards], transport=name, prefetch=ahead)
    used = replay.stats().transport
    if used != name:
        replay.close()
        raise Unavailable(f"asked for transport {name}, got {used}")
    return replay


def fill(shards: Sequence[ServedShard], work: Workload) -> None:
    """Store as many records as the shards hold, in chunks, every shard its part, with random priorities."""
    replay = open_replay(shards, work, GRPC, prefetch=0)
    with replay:
        pairs = work.pairs()
        for index in range(len(shards)):
            writer, left = replay.writer(shard=index), work.records // len(shards)
            while left > 0:
                rows, priorities = next(pairs)
                writer.append(rows, priorities, timeout_s=_FLUSH_S)
                left -= work.chunk
            writer.flush(timeout_s=_FLUSH_S)


def inserting(replay: ReplayClient, work: Workload, level: str = "checkpoint") -> Measure:
    """Columns are packed by the client; a sample ends when everything is acknowledged at this level of durability."""
    writer, pairs = replay.writer(), work.pairs()

    def step() -> int:
        rows, priorities = next(pairs)
        writer.append(rows, priorities, timeout_s=_FLUSH_S)
        return work.chunk

    def finish() -> None:
        ack = writer.flush(timeout_s=_FLUSH_S)
        if ack.unknown:
            raise Unavailable(f"{ack.unknown} records were not acknowledged within {_FLUSH_S:g} s")
        if ack.level != level:
            raise ReplayError(f"records were acknowledged at level {ack.level}, not {level}")

    return lambda seconds: rate(step, seconds, finish)


def sampling(replay: ReplayClient, unit: int = BATCH, whole: bool = False) -> Measure:
    """The client sums the column `reward` of each batch, or copies the batch into an array of its own."""
    own = np.empty((BATCH, replay.spec.record_size), np.uint8) if whole else None

    def step() -> int:
        batch = replay.sample(BATCH)
        if own is None:
            batch.columns["reward"].sum()
        else:
            np.copyto(own, batch.records)
        return unit

    return lambda seconds: rate(step, seconds)


def cycling(replay: ReplayClient, work: Workload, book: Notebook, name: str) -> Measure:
    """Sample, read, and hand back a new priority for every record; ends when all of them are applied."""
    new = work.priorities()
    sent = applied = stale = 0

    def step() -> int:
        nonlocal sent
        batch = replay.sample(BATCH)
        batch.columns["reward"].sum()
        replay.update_priorities(batch.keys, next(new))
        sent += BATCH
        return BATCH

    def finish() -> None:
        nonlocal applied, stale
        report = replay.flush(timeout_s=_FLUSH_S)
        applied, stale = applied + report.applied, stale + report.stale
        book.detail(name, updates_sent=sent, updates_applied=applied, updates_stale=stale)

    return lambda seconds: rate(step, seconds, finish)


def with_cost(measure: Measure, shards: Sequence[ServedShard], book: Notebook, name: str, unit: int) -> Measure:
    """The same, and what a batch costs in processor time on either side, which other load on the machine hardly moves.

    Args:
        measure: rate in batches, or in records with `unit` BATCH.
    """
    batches = client = server = 0.0

    def costed(seconds: float) -> float:
        nonlocal batches, client, server
        wall, own, theirs = time.perf_counter(), time.process_time(), sum(shard.cpu_s for shard in shards)
        result = measure(seconds)
        batches += result / unit * (time.perf_counter() - wall)
        client += time.process_time() - own
        server += sum(shard.cpu_s for shard in shards) - theirs
        each = {"client": round(1e6 * client / batches, 1), "server": round(1e6 * server / batches, 1)}
        book.detail(name, cpu_us_per_512_records=each)
        return result

    return costed


def closing(stack: ExitStack, replay: ReplayClient) -> ReplayClient:
    """Close it with the others."""
    stack.callback(replay.close)
    return replay
