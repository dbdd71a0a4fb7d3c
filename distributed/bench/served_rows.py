"""Rows of one shard in a process of its own, in turn with the same table in this process and with peers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from distributed.bench.clients import closing, cycling, fill, inserting, open_replay, sampling, with_cost
from distributed.bench.notebook import Measure, Notebook, rate
from distributed.bench.peers import PeerProcess, workload_settings
from distributed.bench.rows import GRPC, ROWS, SHM
from distributed.bench.shards import served
from distributed.bench.workload import ALPHA, BATCH, Workload
from replay_server.connecting import in_process
from replay_server.errors import ReplayError
from replay_server.shard import Shard
from replay_server.table import Table


def measure_served(
    book: Notebook, work: Workload, directory: Path | None, peers: dict[str, Path], fill_seconds: float
) -> None:
    """All rows of one workload, ours and the peers', one after the other and again from the start."""
    names = book.wants(*(row.name for row in ROWS if row.name.endswith(f"-{work.name}")))
    names += book.wants(*(name for name in ("shm-read-images",) if work.name == "images" and name not in names))
    if not names:
        return
    with ExitStack() as stack, book.trying(names):
        contenders = _peer_contenders(book, stack, names, work, peers, fill_seconds)
        if any(name.startswith(("grpc", "shm")) for name in names):
            shards = stack.enter_context(served(work, directory))
            before = shards[0].resident_bytes
            book.progress.show(f"filling {work.records:,} records of {work.spec.record_size} B")
            fill(shards, work)
            book.detail(f"served-{work.name}", resident_bytes=[before, shards[0].resident_bytes])

            def remote(name: str) -> Measure:
                replay = closing(stack, open_replay(shards, work, GRPC if name.startswith("grpc") else SHM))
                unit = 1 if work.name == "images" else BATCH
                return with_cost(_remote(name, replay, work, book), shards, book, name, unit)

            contenders |= _made(book, [n for n in names if n.startswith(("grpc", "shm"))], remote)
        ours = [name for name in names if name.startswith(("in-process", "table"))]
        if ours:
            local = _local_contenders(work)
            contenders |= {name: local[name] for name in ours}
        book.alternate(contenders)


def _made(book: Notebook, names: list[str], make: Callable[[str], Measure]) -> dict[str, Measure]:
    """What can be made; the rest has its reason in the notebook."""
    made: dict[str, Measure] = {}
    for name in names:
        with book.trying([name]):
            made[name] = make(name)
    return made


def _remote(name: str, replay: Any, work: Workload, book: Notebook) -> Measure:
    operation = name.split("-")[1]
    if operation == "insert":
        return inserting(replay, work)
    if operation == "cycle":
        return cycling(replay, work, book, name)
    return sampling(replay, unit=1 if work.name == "images" else BATCH, whole=operation == "read")


def _peer_contenders(
    book: Notebook, stack: ExitStack, names: list[str], work: Workload, peers: dict[str, Path], fill_seconds: float
) -> dict[str, Measure]:
    """What peers measure beside the rows `names`; a peer that does not start is missing with its reason."""
    contenders: dict[str, Measure] = {}
    rivals = {rival.name: rival for row in ROWS if row.name in names for rival in row.rivals}
    for peer, python in peers.items():
        mine = {name: rival for name, rival in rivals.items() if rival.peer == peer and rival.workload == work.name}
        if not mine:
            continue
        book.progress.show(f"starting and filling {peer}, D={work.name}")
        with book.trying(mine):
            process = stack.enter_context(
                PeerProcess(peer, python, workload_settings(work, fill_seconds), 4 * fill_seconds)
            )
            book.detail(f"{peer}-{work.name}", **process.facts)
            contenders |= {name: process.measure(rival.operation) for name, rival in mine.items()}
    return contenders


def _local_contenders(work: Workload) -> dict[str, Measure]:
    """The same table in this process: through a client, and by itself."""
    table = Table(work.spec, work.records, priority_exponent=ALPHA)
    pairs, new = work.pairs(), work.priorities()
    for _ in range(0, work.records, work.chunk):
        rows, priorities = next(pairs)
        assert isinstance(rows, dict)
        table.insert(work.spec.pack(rows), priorities)
    replay = in_process([Shard(table)])
    counts = np.array([BATCH])
    stale = 0

    def updating(update: Callable[[Any, Any], int]) -> Measure:
        """With keys drawn just before: other measurements insert, and a stale key costs less than a good one."""

        def measure(seconds: float) -> float:
            nonlocal stale
            keys = cycle([table.sample(counts).keys for _ in range(64)])
            stale = 0
            batches = rate(lambda: update(next(keys), next(new)), seconds)
            if stale:
                raise ReplayError(f"{stale} of the keys that were measured are stale")
            return batches

        return measure

    def update(keys: Any, priorities: Any) -> int:
        nonlocal stale
        replay.update_priorities(keys, priorities)
        stale += replay.flush().stale
        return 1

    def update_table(keys: Any, priorities: Any) -> int:
        nonlocal stale
        stale += table.update_priorities(keys, priorities)[1]
        return 1

    def sample_table() -> int:
        drawn = table.sample(counts)
        work.spec.columns(drawn.records)["reward"].sum()
        return 1

    return {
        "in-process-insert-8": inserting(replay, work),
        "in-process-sample-8": sampling(replay, unit=1),
        "in-process-update-8": updating(update),
        "table-sample-8": lambda seconds: rate(sample_table, seconds),
        "table-update-8": updating(update_table),
    }
