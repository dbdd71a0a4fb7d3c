"""Rows about what a snapshot costs those who insert and sample meanwhile, and what a record costs in memory."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from distributed.bench.clients import closing, fill, open_replay
from distributed.bench.figure import Figure
from distributed.bench.notebook import Notebook
from distributed.bench.rows import GRPC
from distributed.bench.shards import ServedShard, served
from distributed.bench.workload import ALPHA, BATCH, Workload
from replay_server.client import ReplayClient
from replay_server.errors import ReplayError
from replay_server.table import Table

_SAMPLES_AN_INSERT = 8
_CALL_S = 120.0
_REPETITIONS = 3


@dataclass(frozen=True)
class _Load:
    """What a client got done: records a second, and the longest of its calls in milliseconds."""

    records: float
    longest_ms: float


def measure_snapshot(book: Notebook, work: Workload, directory: Path | None) -> None:
    """A client samples, updates and inserts, at first undisturbed, then while another has the shard write a snapshot.

    The longest call counts inserts, which wait for their acknowledgement, as well as samples, which are asked for
    ahead.
    """
    names = book.wants("snapshot-pause", "snapshot-load")
    with ExitStack() as stack, book.trying(names):
        if not names:
            return
        shards = stack.enter_context(served(work, directory))
        fill(shards, work)
        replay = closing(stack, open_replay(shards, work, GRPC))
        loads: list[tuple[_Load, _Load]] = []
        saved_s: list[float] = []
        for turn in range(min(_REPETITIONS, book.repetitions)):
            _load(replay, work, book.seconds / 2, threading.Event())
            before = _load(replay, work, 2 * book.seconds, threading.Event())
            meanwhile, seconds = _while_saving(replay, work, shards[0])
            loads.append((before, meanwhile))
            saved_s.append(seconds)
            book.progress.show(f"snapshot {turn + 1}: {meanwhile.longest_ms:.0f} ms, written in {seconds:.1f} s")
        book.write("snapshot-pause", Figure.of([during.longest_ms for _, during in loads]))
        book.write("snapshot-load", Figure.of([during.records / before.records for before, during in loads]))
        book.detail("snapshot-pause", longest_ms_before=[before.longest_ms for before, _ in loads])
        book.detail(
            "snapshot-load",
            records_per_second=[[before.records, during.records] for before, during in loads],
            seconds_to_write=saved_s,
        )


def measure_memory(book: Notebook, work: Workload) -> None:
    """What the table says it holds beyond the records; the process of a filled shard stands beside it."""
    names = book.wants("bytes-per-record")
    with book.trying(names):
        if not names:
            return
        table = Table(work.spec, work.records, priority_exponent=ALPHA)
        book.write("bytes-per-record", Figure.of([table.overhead_bytes / work.records]))
        resident = book.details.get(f"served-{work.name}", {}).get("resident_bytes")
        if resident is not None:
            grown = (resident[1] - resident[0]) / work.records
            book.detail("bytes-per-record", resident_bytes_per_record_of_80=grown)


def _load(replay: ReplayClient, work: Workload, seconds: float, stop: threading.Event) -> _Load:
    """Sample, update and now and then insert, until the time is over or `stop` is set."""
    pairs, new = work.pairs(), work.priorities()
    longest, records, turn = 0.0, 0, 0
    begin = last = time.perf_counter()
    while last - begin < seconds and not stop.is_set():
        turn += 1
        if turn % _SAMPLES_AN_INSERT == 0:
            rows, priorities = next(pairs)
            assert isinstance(rows, dict)
            replay.insert({name: c[:BATCH] for name, c in rows.items()}, priorities[:BATCH], timeout_s=_CALL_S)
        else:
            batch = replay.sample(BATCH, timeout_s=_CALL_S)
            batch.columns["reward"].sum()
            replay.update_priorities(batch.keys, next(new))
        now = time.perf_counter()
        longest, last, records = max(longest, now - last), now, records + BATCH
    return _Load(records / (last - begin), 1000 * longest)


def _while_saving(replay: ReplayClient, work: Workload, shard: ServedShard) -> tuple[_Load, float]:
    """The load while the shard writes a snapshot, and the seconds that took."""
    done = threading.Event()
    failed: list[Exception] = []
    seconds = 0.0

    def save() -> None:
        nonlocal seconds
        try:
            with open_replay([shard], work, GRPC, prefetch=0) as other:
                begin = time.perf_counter()
                other.save(str(shard.directory))
                seconds = time.perf_counter() - begin
        except Exception as error:
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=save, name="snapshot")
    thread.start()
    load = _load(replay, work, _CALL_S, done)
    thread.join(_CALL_S)
    if failed:
        raise failed[0]
    if not done.is_set():
        raise ReplayError(f"no snapshot within {_CALL_S:g} s")
    return load, seconds
