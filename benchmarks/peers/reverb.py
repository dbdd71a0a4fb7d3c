"""dm-reverb, a server process of its own over gRPC: `python reverb.py WORKLOAD_JSON` (see peer.py).

Tries its kinds of writers, its datasets with several settings and both its ways to update priorities for a moment
each, and measures the best of each; every trial is in the facts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.remove(str(Path(__file__).parent))  # this file is called like the package it measures
import numpy as np
import reverb
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent))
from peer import Operation, Peer, Workload, serve, timed

TABLE = "replay"
IN_FLIGHT = 256
"""Items a writer may have unacknowledged: many, so that it hardly ever waits for a reply."""
DATASETS = [(1, 1000), (1, 10_000), (2, 1000), (4, 1000), (4, 5000)]


def signature(dim: int) -> dict[str, tf.TensorSpec]:
    """One step as the table declares it."""
    return {
        "observation": tf.TensorSpec([dim], tf.float32),
        "action": tf.TensorSpec([], tf.int64),
        "reward": tf.TensorSpec([], tf.float32),
        "discount": tf.TensorSpec([], tf.float32),
        "next_observation": tf.TensorSpec([dim], tf.float32),
    }


def run_server(port: int, dim: int, records: int, alpha: float) -> None:
    """Serve one prioritized table until the parent closes our input."""
    table = reverb.Table(
        name=TABLE,
        sampler=reverb.selectors.Prioritized(alpha),
        remover=reverb.selectors.Fifo(),
        max_size=records,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature={name: tf.TensorSpec([1, *spec.shape], spec.dtype) for name, spec in signature(dim).items()},
    )
    server = reverb.Server([table], port=port)
    sys.stdin.read()
    server.stop()


def start_server(work: Workload) -> str:
    """The address of a new server process; it ends when we do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(port), str(work.dim), str(work.records), str(work.alpha)]
    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2)
    client = reverb.Client(f"localhost:{port}")
    for _ in range(60):
        try:
            client.server_info(timeout=1)
            return f"localhost:{port}"
        except Exception:
            time.sleep(0.5)
    raise RuntimeError("the reverb server did not start within a minute")


Step = dict[str, np.ndarray]


def stream(work: Workload) -> Iterator[tuple[Step, float]]:
    """Steps as reverb takes them, one by one, made beforehand."""
    steps = []
    chunks, priorities = work.chunks()[:4], work.priorities(work.chunk)[:4]
    for chunk, weights in zip(chunks, priorities, strict=True):
        names = list(chunk)
        rows = zip(*(chunk[name] for name in names), strict=True)
        steps += [(dict(zip(names, row, strict=True)), float(p)) for row, p in zip(rows, weights, strict=True)]
    return cycle(steps)


def legacy(client: Any, steps: Iterator[tuple[Step, float]]) -> Operation:
    """`reverb.Writer`, chunks of one step."""
    writer = client.writer(max_sequence_length=1, max_in_flight_items=1000)

    def step() -> int:
        for _ in range(64):
            data, priority = next(steps)
            writer.append(data)
            writer.create_item(TABLE, 1, priority)
        return 64

    return Operation(step, writer.flush)


def trajectory(client: Any, steps: Iterator[tuple[Step, float]], chunk: int) -> Operation:
    """`reverb.TrajectoryWriter`; `chunk` steps are compressed and sent together."""
    writer = client.trajectory_writer(num_keep_alive_refs=max(chunk, 2), validate_items=False)
    for name in signature(1):
        writer.configure((name,), num_keep_alive_refs=max(chunk, 2), max_chunk_length=chunk)

    def step() -> int:
        for _ in range(64):
            data, priority = next(steps)
            writer.append(data)
            history = writer.history
            writer.create_item(TABLE, priority, {name: history[name][-1:] for name in data})
        writer.flush(block_until_num_items=IN_FLIGHT, timeout_ms=60_000)
        return 64

    return Operation(step, lambda: writer.flush(timeout_ms=60_000))


def structured(client: Any, steps: Iterator[tuple[Step, float]], dim: int) -> Operation:
    """`reverb.StructuredWriter`: its C++ client makes the items; every one has the same priority, in its favour."""
    from reverb import structured_writer as sw

    pattern = sw.pattern_from_transform(signature(dim), lambda step: {name: step[name][-1:] for name in signature(dim)})
    writer = client.structured_writer([sw.create_config(pattern=pattern, table=TABLE)])

    def step() -> int:
        for _ in range(64):
            writer.append(next(steps)[0])
        writer.flush(block_until_num_items=IN_FLIGHT, timeout_ms=60_000)
        return 64

    return Operation(step, lambda: writer.flush(timeout_ms=60_000))


def in_turn(operations: list[Operation]) -> Operation:
    """Several writers, each with a stream of its own to the server."""
    turns = cycle(operations)

    def finish() -> None:
        for operation in operations:
            operation.finish()

    return Operation(lambda: next(turns).step(), finish)


def dataset(address: str, work: Workload, workers: int, in_flight: int) -> Iterator[Any]:
    """Batches; what is prefetched when a measurement begins is a few per cent of what it reads."""
    samples = reverb.TrajectoryDataset.from_table_signature(
        address, TABLE, max_in_flight_samples_per_worker=in_flight, num_workers_per_iterator=workers
    )
    return iter(samples.batch(work.batch, drop_remainder=True).prefetch(2))


def best(trials: dict[str, Callable[[], Operation]], seconds: float) -> tuple[Operation, dict[str, float]]:
    """Try each for a moment after a warm-up; returns the fastest, the others closed, and records/s of all."""
    chosen: Operation | None = None
    rates: dict[str, float] = {}
    for name, make_one in trials.items():
        try:
            operation = make_one()
            timed(operation, seconds / 2)
            records, took = timed(operation, seconds)
        except Exception as error:
            print(f"reverb: {name}: {error}", file=sys.stderr)
            continue
        if records / took > max(rates.values(), default=0.0):
            chosen = operation
        rates[name] = records / took
    if chosen is None:
        raise RuntimeError(f"none of {', '.join(trials)} works")
    return chosen, rates


def make(work: Workload) -> Peer:
    """A server filled for `fill_seconds` with the best writer."""
    address = start_server(work)
    client = reverb.Client(address)
    steps, moment = stream(work), work.fill_seconds / 10
    inserters: dict[str, Callable[[], Operation]] = {
        "Writer": lambda: legacy(client, steps),
        "TrajectoryWriter, chunks of 1": lambda: trajectory(client, steps, 1),
        "TrajectoryWriter, chunks of 16": lambda: trajectory(client, steps, 16),
        "StructuredWriter": lambda: structured(client, steps, work.dim),
        "2 Writers": lambda: in_turn([legacy(client, steps) for _ in range(2)]),
        "2 StructuredWriters": lambda: in_turn([structured(client, steps, work.dim) for _ in range(2)]),
    }
    insert, inserted = best(inserters, moment)
    timed(insert, work.fill_seconds, work.records)
    holds = client.server_info()[TABLE].current_size

    def sampler(workers: int, in_flight: int) -> Operation:
        batches = dataset(address, work, workers, in_flight)

        def step() -> int:
            next(batches).data["reward"].numpy().sum()
            return work.batch

        return Operation(step)

    samplers = {f"{w} workers, {n} in flight": lambda w=w, n=n: sampler(w, n) for w, n in DATASETS}
    sample, sampled = best(samplers, moment)
    fastest = max(sampled, key=lambda name: sampled[name])
    batches = dataset(address, work, *DATASETS[list(samplers).index(fastest)])
    new = cycle(work.priorities(work.batch))
    tensors = reverb.TFClient(address)

    def update_by_client() -> int:
        keys = next(batches).info.key.numpy()
        client.mutate_priorities(TABLE, dict(zip(keys.tolist(), next(new).tolist(), strict=True)))
        return work.batch

    def update_by_tensors() -> int:
        tensors.update_priorities(TABLE, next(batches).info.key, tf.constant(next(new)))
        return work.batch

    both, cycles = best(
        {"mutate_priorities": lambda: Operation(update_by_client), "TFClient": lambda: Operation(update_by_tensors)},
        moment,
    )
    facts = {
        "version": version("dm-reverb"),
        "tensorflow": tf.__version__,
        "transport": "gRPC",
        "trials": {"insert": inserted, "sample": sampled, "cycle": cycles},
    }
    return Peer({"insert": insert, "sample": sample, "cycle": both}, holds, facts)


if sys.argv[1] == "--serve":
    run_server(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
else:
    serve(make)
