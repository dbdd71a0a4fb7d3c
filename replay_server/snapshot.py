"""A snapshot of one shard: an HDF5 file that other programs can read, written while inserts and samples go on.

Layout; row i of every dataset marked * is the i-th oldest record. `docs/snapshots.md` shows it from the outside::

    /                   attributes: settings (format, shard, capacity, priority_exponent, sampler, remover,
                        max_times_sampled with 0 for none), life (incarnation), counters (inserted, sampled, fenced),
                        position in the journal, size, used
    /spec /writers /rng     JSON texts: record layout, writer marks, state of the random generator
    /columns/<field> *  one a field, [size, *shape], little-endian
    /padding *          uint8[size, P], bytes of the records that belong to no field; only where the layout has such
    /keys *             slot, shard, incarnation, generation: what samples return
    /priorities *       float64[size], raw
    /times_sampled *    uint32[size], only with max_times_sampled
    /free               slot, generation: the slots below `used` without a record, in the order of their next use;
                        those from `used` on, which never held one, follow

Every dataset is contiguous. Behind what HDF5 reads the file ends with a checksum of all of it, see `snapshot_file`.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE
from replay_server.capture import BLOCK_BYTES, Block, Capture
from replay_server.clock import Clock, SystemClock
from replay_server.errors import CheckpointError, HeadraceError
from replay_server.snapshot_file import (
    FORMAT,
    FREE_DTYPE,
    Stream,
    blocks,
    check_seal,
    create,
    kinds_of,
    open_streams,
    padding_of,
    read_attributes,
    seal,
)
from replay_server.specs import RecordSpec
from replay_server.table import Table
from replay_server.table_state import TableState
from replay_server.writer_marks import WriterMarks

PACE = 1.0
"""Seconds of rest for every second of work of a snapshot, so that the calls it runs beside keep the processor."""


@dataclass(frozen=True)
class ShardMeta:
    """What a shard knows beside its table.

    Attributes:
        inserted, sampled, fenced: its counters.
        writers: its writer marks, as `WriterMarks.to_json` tells them.
        position: of its journal; every entry before it is in the table. 0 without a journal.
    """

    inserted: int
    sampled: float
    fenced: int
    writers: list[list[int | str]]
    position: int = 0


class Rests:
    """What a snapshot does between its blocks: rest, or end when its shard is stopping.

    Args:
        pace: seconds of rest for every second the processor worked since the last, see PACE.
        clock: of the rests.
        stopping: of the shard.
    """

    def __init__(self, pace: float = 0.0, clock: Clock | None = None, stopping: threading.Event | None = None) -> None:
        self._pace = pace
        self._clock = clock or SystemClock()
        self._stopping = stopping or threading.Event()
        self._worked = time.thread_time()

    def between(self, *, hurry: bool = False) -> None:
        """No rest in a `hurry`. Raises CheckpointError when the shard is stopping."""
        if self._stopping.is_set():
            raise CheckpointError("the snapshot was given up because its shard is stopping")
        if self._pace > 0.0 and not hurry:
            self._clock.sleep(self._pace * (time.thread_time() - self._worked))
            self._worked = time.thread_time()


def write_snapshot(
    path: str,
    capture: Capture,
    lock: threading.Condition,
    meta: ShardMeta,
    rests: Rests | None = None,
) -> None:
    """Write beside `path`, sync, rename: the file is there whole or not at all.

    Args:
        path: of the file; directories are made.
        capture: begun; its caller ends it.
        lock: what inserts wait on for room in the capture; taken for one block at a time, and told after each.
        meta: of the moment of the cut.
        rests: between its blocks; none while an insert waits for the capture.

    Raises:
        CheckpointError: the file cannot be written, or the shard is stopping.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        _write(beside, capture, lock, meta, rests or Rests())
        os.replace(beside, target)
        _sync(target.parent)
    except (OSError, RuntimeError) as error:  # HDF5 raises either, in several lines of its own words
        raise CheckpointError(f"{path}: cannot write the snapshot: {_first_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone already, or could never be made
            beside.unlink()


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0].partition(": time = ")[0]


def read_snapshot(path: str, table: Table, *, keep_incarnation: bool = False) -> ShardMeta:
    """Make `table` what was saved; the whole file is checked before anything of the table changes.

    Args:
        path: of the file.
        table: of the same spec and settings as the one saved.
        keep_incarnation: keys handed out before the save stay good; only when nothing happened to that shard after it.

    Raises:
        CheckpointError: missing, damaged, made for other settings, or by this very life of the shard.
    """
    try:
        with open(path, "rb") as handle:
            return _read(handle, table, keep_incarnation)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such snapshot") from None
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, HeadraceError) as error:
        raise CheckpointError(f"{path}: damaged or not a snapshot: {error}") from error


def _read(handle: BinaryIO, table: Table, keep_incarnation: bool) -> ShardMeta:
    descriptor = handle.fileno()
    check_seal(descriptor)
    with h5py.File(handle, "r") as file:  # not by its path, where another one may be by now
        attributes = read_attributes(file)
        _check_settings(attributes, table)
        size, used = attributes["size"], attributes["used"]
        streams = open_streams(file, descriptor, kinds_of(table.spec, size, used - size, table.consuming))
    state, meta = _read_state(streams, attributes), _read_meta(attributes)
    if not keep_incarnation and state.incarnation == table.incarnation:
        raise CheckpointError(f"made by incarnation {table.incarnation}, give this shard a new one")
    table.import_state(state, records_of(streams, table.spec, size))
    if keep_incarnation:
        table.incarnation = state.incarnation
    return meta


def _settings(table: Table) -> dict[str, Any]:
    """What the file says of the table it was made from."""
    return {
        "shard": table.shard,
        "capacity": table.capacity,
        "priority_exponent": float(table.priority_exponent),
        "sampler": table.sampler,
        "remover": table.remover,
        "max_times_sampled": table.max_times_sampled or 0,
    }


def refuse_other_records(attributes: dict[str, Any], table: Table) -> None:
    """Raises CheckpointError where what was saved cannot be in this table, whichever shard it was."""
    theirs = RecordSpec.from_json(attributes["spec"])
    if theirs != table.spec:
        raise CheckpointError(f"made for another record spec: {_difference(theirs, table.spec)}")
    _refuse_another("max_times_sampled", attributes, table)


def _check_settings(attributes: dict[str, Any], table: Table) -> None:
    refuse_other_records(attributes, table)
    _refuse_another("shard", attributes, table)
    if attributes["capacity"] > table.capacity:
        raise CheckpointError(
            f"made with capacity {attributes['capacity']}, this shard has {table.capacity}: it may grow, not shrink"
        )


def _refuse_another(name: str, attributes: dict[str, Any], table: Table) -> None:
    if attributes[name] != (ours := _settings(table)[name]):
        raise CheckpointError(f"made with {name} {attributes[name]}, this shard has {ours}")


def _difference(theirs: RecordSpec, ours: RecordSpec) -> str:
    """The first thing that two specs do not share."""
    for name in sorted({*theirs.semantics, *ours.semantics}):
        if theirs.semantics.get(name) != ours.semantics.get(name):
            return f"{name} is {theirs.semantics.get(name)!r}, this shard has {ours.semantics.get(name)!r}"
    for one, other in zip(theirs.fields, ours.fields, strict=False):
        if one != other:
            return f"field {one}, this shard has {other}"
    return f"{len(theirs.fields)} fields, this shard has {len(ours.fields)}"


def _write(path: Path, capture: Capture, lock: threading.Condition, meta: ShardMeta, rests: Rests) -> None:
    table, state = capture.table, capture.state
    size, used = len(state.order), len(state.generations)
    attributes = {
        "format": FORMAT,
        "spec": table.spec.to_json(),
        **_settings(table),
        "incarnation": state.incarnation,
        "inserted": meta.inserted,
        "sampled": float(meta.sampled),
        "fenced": meta.fenced,
        "position": meta.position,
        "writers": json.dumps(meta.writers),
        "rng": json.dumps(state.rng, sort_keys=True),
        "size": size,
        "used": used,
    }
    kinds = kinds_of(table.spec, size, used - size, table.consuming)
    offsets = create(path, attributes, kinds)
    descriptor = os.open(path, os.O_RDWR)
    try:
        streams = {name: Stream(descriptor, offsets[name], kind) for name, kind in kinds.items()}
        for rows in _free_rows(state):
            streams["free"].write(rows)
        _write_rows(streams, capture, lock, rests)
        for _ in seal(descriptor):
            rests.between()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_rows(state: TableState) -> Iterator[NDArray[Any]]:
    step = BLOCK_BYTES // FREE_DTYPE.itemsize
    for start in range(0, len(state.free), step):
        slots = state.free[start : start + step]
        rows = np.empty(len(slots), FREE_DTYPE)
        rows["slot"], rows["generation"] = slots, state.generations[slots]
        yield rows


def _write_rows(streams: dict[str, Stream], capture: Capture, lock: threading.Condition, rests: Rests) -> None:
    while True:
        with lock:
            block = capture.next_block()
            lock.notify_all()
        if block is None:
            return
        for name, rows in _parts(capture, block).items():
            streams[name].write(rows)
        rests.between(hurry=capture.awaited)


def _parts(capture: Capture, block: Block) -> dict[str, NDArray[Any]]:
    """What goes into the file for these rows, by dataset."""
    table, state = capture.table, capture.state
    slots = state.order[block.first : block.first + len(block.records)]
    keys = np.empty(len(slots), KEY_DTYPE)
    keys["slot"], keys["generation"] = slots, state.generations[slots]
    keys["shard"], keys["incarnation"] = table.shard, state.incarnation
    parts = {f"columns/{name}": column for name, column in table.spec.columns(block.records).items()}
    parts |= {"keys": keys, "priorities": state.priorities[slots]}
    if len(padding := padding_of(table.spec)):
        parts["padding"] = block.records[:, padding]
    if state.times_sampled is not None:
        parts["times_sampled"] = state.times_sampled[slots]
    return parts


def _read_state(streams: dict[str, Stream], attributes: dict[str, Any]) -> TableState:
    """The state without records."""
    used = attributes["used"]
    keys, free = streams["keys"].read_all(), streams["free"].read_all()
    order = np.ascontiguousarray(keys["slot"])
    generations, priorities = np.zeros(used, np.uint32), np.zeros(used)
    generations[order], generations[free["slot"]] = keys["generation"], free["generation"]
    priorities[order] = streams["priorities"].read_all()
    times = None
    if "times_sampled" in streams:
        times = np.zeros(used, np.uint32)
        times[order] = streams["times_sampled"].read_all()
    return TableState(
        order=order,
        free=np.ascontiguousarray(free["slot"]),
        priorities=priorities,
        times_sampled=times,
        generations=generations,
        incarnation=attributes["incarnation"],
        rng=json.loads(attributes["rng"]),
    )


def _read_meta(attributes: dict[str, Any]) -> ShardMeta:
    writers = json.loads(attributes["writers"])
    WriterMarks().load(writers)
    counters = {name: attributes[name] for name in ("inserted", "sampled", "fenced", "position")}
    return ShardMeta(writers=writers, **counters)


def records_of(streams: dict[str, Stream], spec: RecordSpec, size: int) -> Iterator[NDArray[np.uint8]]:
    """The records in blocks, oldest first."""
    padding = padding_of(spec)
    for start, stop in blocks(size, spec.record_size):
        records = np.zeros((stop - start, spec.record_size), np.uint8)
        for name, column in spec.columns(records).items():
            column[...] = streams[f"columns/{name}"].read(stop - start)
        if len(padding):
            records[:, padding] = streams["padding"].read(stop - start)
        yield records


def _remove_leftovers(target: Path) -> None:
    """What processes killed in the middle of a snapshot have left beside it."""
    for path in target.parent.glob(f".{target.name}.*.tmp"):
        owner = path.suffixes[-2].lstrip(".")
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            path.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
