"""A share of what other shards saved together: the same replay over another number of shards.

Every record goes, with its priority and the times it was sampled, to one of the new shards, in turn; each gets as
many as the others, of all ages and from every old shard. Counters are divided alike: a rate limiter looks at their
totals over all shards, whose law so goes on where it was. Keys, generations, writers' marks and generators are of the
shard that was, and begin anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from replay_server.errors import CheckpointError, HeadraceError
from replay_server.snapshot import ShardMeta, records_of, refuse_other_records
from replay_server.snapshot_file import Stream, check_seal, kinds_of, open_streams, read_attributes
from replay_server.table import Table
from replay_server.table_state import TableState


class _Saved:
    """One old shard's file, checked, of which every `parts`-th record from `first` on is ours."""

    def __init__(self, handle: BinaryIO, index: int, table: Table) -> None:
        check_seal(handle.fileno())
        with h5py.File(handle, "r") as file:
            attributes = read_attributes(file)
            refuse_other_records(attributes, table)
            if attributes["shard"] != index:
                raise CheckpointError(f"is of shard {attributes['shard']}, not {index}: a mixed set")
            self.size: int = attributes["size"]
            kinds = kinds_of(table.spec, self.size, attributes["used"] - self.size, table.consuming)
            self.streams: dict[str, Stream] = open_streams(file, handle.fileno(), kinds)
        self.counters: dict[str, Any] = {name: attributes[name] for name in ("inserted", "sampled", "fenced")}


def read_share(paths: Sequence[str], table: Table, *, part: int, parts: int) -> ShardMeta:
    """Make an empty table one share of what shards saved together.

    Snapshots say nothing of time: records that are equally far on the way from the oldest to the newest of their shards
    count as equally old.

    Args:
        paths: the snapshots of all of them, in the order of their numbers.
        table: of the same spec and `max_times_sampled`.
        part: which share, 0 to parts - 1.
        parts: shares that everything is dealt out to.

    Returns:
        The share's counters, which add up to those of the old shards.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind, or the share has more records than the table
            holds; nothing of the table has changed.
    """
    with ExitStack() as files:
        saved = [_checked(path, index, table, files) for index, path in enumerate(paths)]
        firsts, before = [], 0
        for old in saved:
            firsts.append((part - before) % parts)
            before += old.size
        ages = np.concatenate(
            [(np.arange(f, old.size, parts) + 0.5) / old.size for f, old in zip(firsts, saved, strict=True)] or [_NONE]
        )
        if len(ages) > table.capacity:
            raise CheckpointError(
                f"{paths[0]} and the others hold {before} records, too many for {parts} shards of capacity "
                f"{table.capacity}: raise replay.capacity"
            )
        table.import_state(
            _state(saved, firsts, parts, ages, table),
            (rows for f, old in zip(firsts, saved, strict=True) for rows in _rows(old, table, f, parts)),
            places=np.arange(len(ages)),
        )
    counters = {name: [old.counters[name] for old in saved] for name in ("inserted", "sampled", "fenced")}
    return ShardMeta(
        inserted=int(_share(sum(counters["inserted"]), part, parts)),
        sampled=float(_share(sum(counters["sampled"]), part, parts)),
        fenced=int(_share(sum(counters["fenced"]), part, parts)),
        writers=[],
    )


_NONE = np.zeros(0)


def _checked(path: str, index: int, table: Table, files: ExitStack) -> _Saved:
    try:
        return _Saved(files.enter_context(Path(path).open("rb")), index, table)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such snapshot") from None
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, HeadraceError) as error:
        raise CheckpointError(f"{path}: damaged or not a snapshot: {error}") from error


def _state(
    saved: Sequence[_Saved], firsts: Sequence[int], parts: int, ages: NDArray[np.float64], table: Table
) -> TableState:
    """Record i of the share, old shard after old shard, is in slot i."""

    def column(name: str) -> NDArray[Any]:
        return np.concatenate(
            [old.streams[name].read_all()[first::parts] for first, old in zip(firsts, saved, strict=True)]
        )

    return TableState(
        order=np.argsort(ages, kind="stable").astype(np.uint32),
        free=np.zeros(0, np.uint32),
        priorities=column("priorities"),
        times_sampled=column("times_sampled") if table.consuming else None,
        generations=np.ones(len(ages), np.uint32),
        incarnation=table.incarnation,
        rng=table.rng_state,
    )


def _rows(old: _Saved, table: Table, first: int, parts: int) -> Iterator[NDArray[np.uint8]]:
    start = 0
    for records in records_of(old.streams, table.spec, old.size):
        ours = records[(first - start) % parts :: parts]
        start += len(records)
        if len(ours):
            yield ours


def _share(total: float, part: int, parts: int) -> float:
    """Whole numbers, a fraction of the total goes to the first."""
    whole = int(total // 1)
    return whole // parts + (part < whole % parts) + (total - whole if part == 0 else 0)
