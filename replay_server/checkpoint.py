"""A stop-the-world checkpoint of one shard as an HDF5 file that other programs can read.

Layout (every name is a dataset unless said otherwise)::

    /                       attributes: format, shard, capacity, priority_exponent, incarnation, inserted, sampled,
                            fenced, sha256
    /spec /writers /rng     JSON texts: record layout, writer marks, state of the random generator
    /columns/<field>        one a field, [size, *shape], little-endian
    /padding                uint8[size, P], only when a record carries bytes other than zero between its fields
    /priorities             float64[size], raw
    /slots                  uint32[size], where row i was stored, ascending
    /order                  uint32[size], slots, oldest record first
    /free                   uint32[used - size], the other slots ever used in the order of their next use
    /times_sampled          uint32[size], only where records are removed by being sampled
    /generations            uint32[used], of all slots up to the last one ever used

`sha256` covers the attributes and datasets in a fixed order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from replay_server.errors import CheckpointError, HeadraceError
from replay_server.specs import RecordSpec
from replay_server.table import Table, TableState
from replay_server.writer_marks import WriterMarks

_FORMAT = "headrace replay shard 1"
_TEXTS = ("spec", "writers", "rng")  # datasets, because an HDF5 attribute holds 64 KiB at most
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardState:
    """A table's state and the counters and writer marks of its shard."""

    table: TableState
    inserted: int
    sampled: float
    fenced: int
    writers: list[list[int | str]]


def write_checkpoint(path: str, table: Table, state: ShardState) -> None:
    """Write beside `path`, sync, rename: the file is there whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(beside, "w") as file:
            _write(file, table, state)
        with open(beside, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(beside, target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot write the checkpoint: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone already, or could never be made
            beside.unlink()


def read_checkpoint(path: str, table: Table) -> ShardState:
    """Read a checkpoint that fits `table`.

    Raises:
        CheckpointError: missing, damaged, or made for another spec, capacity, exponent or shard.
    """
    try:
        with h5py.File(path, "r") as file:
            _check_kind(path, file, table)
            state = _read(file, table.spec)
            digest = _digest(_attributes(table, state), table.spec, state.table)
            if file.attrs["sha256"] != digest:
                raise CheckpointError(f"{path}: damaged: its checksum does not match its content")
            return state
    except HeadraceError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {error}") from error


def _attributes(table: Table, state: ShardState) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "spec": table.spec.to_json(),
        "shard": table.shard,
        "capacity": table.capacity,
        "priority_exponent": table.priority_exponent,
        "incarnation": state.table.incarnation,
        "inserted": state.inserted,
        "sampled": state.sampled,
        "fenced": state.fenced,
        "writers": json.dumps(state.writers),
        "rng": json.dumps(state.table.rng, sort_keys=True),
    }


def _write(file: h5py.File, table: Table, state: ShardState) -> None:
    attributes = _attributes(table, state)
    for name, value in attributes.items():
        (file if name in _TEXTS else file.attrs)[name] = value
    spec, records = table.spec, state.table.records
    for field in spec.fields:
        dataset = file.create_dataset(
            f"columns/{field.name}", shape=(len(records), *field.shape), dtype=field.numpy_dtype
        )
        for start, block in _blocks(records):
            dataset[start : start + len(block)] = spec.columns(block)[field.name]
    padding = records[:, _padding(spec)]
    if padding.any():
        file["padding"] = padding
    for name, values in _arrays(state.table).items():
        file[name] = values
    file.attrs["sha256"] = _digest(attributes, spec, state.table)


def _read(file: h5py.File, spec: RecordSpec) -> ShardState:
    priorities = np.asarray(file["priorities"], np.float64)
    records = np.zeros((len(priorities), spec.record_size), np.uint8)
    columns = spec.columns(records)
    for field in spec.fields:
        columns[field.name][...] = file[f"columns/{field.name}"][()]
    if "padding" in file:
        records[:, _padding(spec)] = file["padding"][()]
    writers = json.loads(file["writers"].asstr()[()])
    WriterMarks().load(writers)
    return ShardState(
        TableState(
            records=records,
            priorities=priorities,
            slots=np.asarray(file["slots"], np.uint32),
            order=np.asarray(file["order"], np.uint32),
            free=np.asarray(file["free"], np.uint32),
            times_sampled=np.asarray(file["times_sampled"], np.uint32) if "times_sampled" in file else None,
            generations=np.asarray(file["generations"], np.uint32),
            incarnation=int(file.attrs["incarnation"]),
            rng=json.loads(file["rng"].asstr()[()]),
        ),
        inserted=int(file.attrs["inserted"]),
        sampled=float(file.attrs["sampled"]),
        fenced=int(file.attrs["fenced"]),
        writers=writers,
    )


def _check_kind(path: str, file: h5py.File, table: Table) -> None:
    if file.attrs.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: format is {file.attrs.get('format')!r}, this version reads {_FORMAT!r}")
    if RecordSpec.from_json(file["spec"].asstr()[()]) != table.spec:
        raise CheckpointError(f"{path}: made for another record spec than this shard's")
    for name, ours in (
        ("shard", table.shard),
        ("capacity", table.capacity),
        ("priority_exponent", table.priority_exponent),
    ):
        if file.attrs[name] != ours:
            raise CheckpointError(f"{path}: made with {name} {file.attrs[name]}, this shard has {ours}")


def _digest(attributes: dict[str, Any], spec: RecordSpec, state: TableState) -> str:
    digest = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for _, block in _blocks(state.records):
        digest.update(block.data)
    for values in _arrays(state).values():
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _arrays(state: TableState) -> dict[str, NDArray[Any]]:
    """What is kept per slot beside the records."""
    arrays: dict[str, NDArray[Any]] = {
        "priorities": state.priorities,
        "slots": state.slots,
        "order": state.order,
        "free": state.free,
        "generations": state.generations,
    }
    if state.times_sampled is not None:
        arrays["times_sampled"] = state.times_sampled
    return arrays


def _blocks(records: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Runs of rows of bounded size, each with its first row."""
    rows = max(_BLOCK_BYTES // records.shape[1], 1)
    for start in range(0, len(records), rows):
        yield start, records[start : start + rows]


def _padding(spec: RecordSpec) -> NDArray[np.int64]:
    """Byte positions of a record that belong to no field."""
    used = np.zeros(spec.record_size, np.bool_)
    for field in spec.fields:
        offset = spec.record_dtype.fields[field.name][1]  # type: ignore[index]
        used[offset : offset + field.size] = True
    return np.flatnonzero(~used)
