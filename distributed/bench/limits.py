"""Physical limits, measured in the same run: what no replay on this machine can exceed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from distributed.bench.notebook import Measure, Notebook, rate
from distributed.bench.workload import BATCH, Workload
from replay_server.echo import Echo

_KEY_AND_PROBABILITY = 24
_PRIORITY = 8
_INSERTS_IN_FLIGHT = 8
_SAMPLES_IN_FLIGHT = 4
_BATCHES_A_CALL = (4, 16, 32)
_STOP_S = 10.0

DESCRIPTIONS = {
    "memcpy-1MB": "memcpy of 1 MB, GB/s",
    "memcpy-256MB": "memcpy of 256 MB, GB/s",
    "memcpy-8": "memcpy of a chunk into random places of a full table",
    "gather-8": "one gather of 512 random records of 80 B into one array",
    "gather-batches-8": "one gather of 512 random records of 80 B into one array",
    "gather-128": "one gather of 512 random records of 1,040 B into one array",
    "gather-images": "one gather of 512 random records of 56,464 B into one array",
    "echo-insert-8": "gRPC raw bytes, requests as large as a chunk of 4096",
    "echo-sample-8": "gRPC raw bytes, replies as large as the best of 4, 16 and 32 batches",
    "echo-sample-128": "gRPC raw bytes, replies as large as the best of 4, 16 and 32 batches",
    "write": "write() of chunks to one file",
    "write-fsync": "write() of chunks to one file, fdatasync() after every eighth",
}


def measure_limits(book: Notebook, works: Iterable[Workload], directory: Path | None) -> None:
    """Measure the limits of these workloads; each stands under its name in DESCRIPTIONS."""
    for megabytes in (1, 256):
        name = f"memcpy-{megabytes}MB"
        with book.trying([name]):
            book.alternate({name: _memcpy(megabytes * 10**6)})
    for work in works:
        names = [name for name in DESCRIPTIONS if name.endswith(f"-{work.name}")]
        with book.trying(names):
            _gather(book, work)
        if work.name != "images":
            with book.trying(names):
                _echo(book, work)
        if work.name == "8":
            with book.trying(["write", "write-fsync"]):
                _write(book, work, directory)


def _memcpy(size: int) -> Measure:
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)

    def step() -> int:
        np.copyto(target, source)
        return size

    return lambda seconds: rate(step, seconds) / 1e9


def _gather(book: Notebook, work: Workload) -> None:
    table = np.ones((work.records, work.spec.record_size), np.uint8)
    rng = np.random.default_rng(work.seed)
    slots = [rng.integers(0, work.records, BATCH) for _ in range(64)]
    batch = np.empty((BATCH, work.spec.record_size), np.uint8)
    turn = 0

    def gather() -> int:
        nonlocal turn
        turn += 1
        table.take(slots[turn % len(slots)], axis=0, out=batch, mode="clip")
        return BATCH

    unit = 1 / BATCH if work.name == "images" else 1.0
    book.alternate({f"gather-{work.name}": lambda seconds: rate(gather, seconds) * unit})
    if work.name == "8":
        book.alternate({"gather-batches-8": lambda seconds: rate(gather, seconds) / BATCH})
        chunk = np.ones((work.chunk, work.spec.record_size), np.uint8)
        starts = rng.integers(0, work.records - work.chunk + 1, 64)

        def store() -> int:
            nonlocal turn
            turn += 1
            start = starts[turn % len(starts)]
            np.copyto(table[start : start + work.chunk], chunk)
            return work.chunk

        book.alternate({"memcpy-8": lambda seconds: rate(store, seconds)})


def _echo(book: Notebook, work: Workload) -> None:
    command = [sys.executable, "-m", "replay_server.echo"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        with Echo(process.stdout.readline().strip()) as echo:
            batch = BATCH * (work.spec.record_size + _KEY_AND_PROBABILITY)

            def sample(seconds: float) -> float:
                share = seconds / len(_BATCHES_A_CALL)
                return max(
                    echo.calls_per_second(64, count * batch, _SAMPLES_IN_FLIGHT, share) * count * BATCH
                    for count in _BATCHES_A_CALL
                )

            def insert(seconds: float) -> float:
                size = work.chunk * (work.spec.record_size + _PRIORITY)
                return echo.calls_per_second(size, 64, _INSERTS_IN_FLIGHT, seconds) * work.chunk

            sample(book.seconds / 2)
            book.alternate({f"echo-sample-{work.name}": sample})
            if work.name == "8":
                book.alternate({"echo-insert-8": insert})
    finally:
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _write(book: Notebook, work: Workload, directory: Path | None) -> None:
    chunk = bytes(work.chunk * (work.spec.record_size + _PRIORITY))
    most = 256 << 20
    with tempfile.NamedTemporaryFile(dir=directory, prefix="headrace-bench-") as file:
        written = 0

        def write(chunks: int, sync: bool) -> int:
            nonlocal written
            for _ in range(chunks):
                written += os.write(file.fileno(), chunk)
            if sync:
                os.fdatasync(file.fileno())
            if written >= most:
                os.ftruncate(file.fileno(), 0)
                os.lseek(file.fileno(), 0, os.SEEK_SET)
                written = 0
            return chunks * work.chunk

        book.alternate(
            {
                "write": lambda seconds: rate(lambda: write(1, False), seconds),
                "write-fsync": lambda seconds: rate(lambda: write(_INSERTS_IN_FLIGHT, True), seconds),
            }
        )
