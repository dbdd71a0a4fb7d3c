"""Logged data: the records of snapshots, as what another run or shard starts from.

Records are taken, not the state of the shard that held them: they may be dealt out to another number of shards, begin
with equal priorities (the old ones were errors of another learner) and keep no times they were sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from replay_server.errors import CheckpointError, HeadraceError
from replay_server.snapshot_file import Kind, Stream, blocks, check_seal, open_streams, read_attributes
from replay_server.specs import RecordSpec


def count_records(path: str, spec: RecordSpec) -> int:
    """Records in a snapshot, after the whole file was checked.

    Raises:
        CheckpointError: missing, damaged, or its records do not have what `spec` asks for; names file and difference.
    """
    with _opened(path, spec) as (size, _):
        return size


def read_records(
    paths: Sequence[str], spec: RecordSpec, *, part: int = 0, parts: int = 1
) -> Iterator[NDArray[np.uint8]]:
    """The records of snapshots in blocks uint8[B, record_size], file after file, oldest first.

    Args:
        paths: of the files.
        spec: of the records to be made; columns that only the files have are left out.
        part: which share is given, 0 to parts - 1.
        parts: shares that the records are dealt out to in turn.

    Raises:
        CheckpointError: as `count_records`.
    """
    before = 0
    for path in paths:
        with _opened(path, spec) as (size, streams):
            for start, stop in blocks(size, spec.record_size):
                records = np.zeros((stop - start, spec.record_size), np.uint8)
                for name, column in spec.columns(records).items():
                    column[...] = streams[f"columns/{name}"].read(stop - start)
                yield records[(part - before - start) % parts :: parts]
        before += size


@contextmanager
def _opened(path: str, spec: RecordSpec) -> Iterator[tuple[int, dict[str, Stream]]]:
    """Number of records, and a stream for each column of `spec`."""
    try:
        with open(path, "rb") as handle:
            descriptor = handle.fileno()
            check_seal(descriptor)
            with h5py.File(handle, "r") as file:
                attributes = read_attributes(file)
                _check_spec(RecordSpec.from_json(attributes["spec"]), spec)
                size: int = attributes["size"]
                kinds = {f"columns/{f.name}": Kind((size, *f.shape), f.numpy_dtype) for f in spec.fields}
                streams: dict[str, Any] = open_streams(file, descriptor, kinds)
            yield size, streams
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, HeadraceError) as error:
        raise CheckpointError(f"{path}: damaged or not a snapshot: {error}") from error


def _check_spec(theirs: RecordSpec, ours: RecordSpec) -> None:
    """Raises CheckpointError naming everything that keeps their records from being ours."""
    differences = []
    for name in sorted({*theirs.semantics, *ours.semantics}):
        if (there := theirs.semantics.get(name)) != (here := ours.semantics.get(name)):
            differences.append(f"{name} is {there} there, {here} here")
    fields = {field.name: field for field in theirs.fields}
    for field in ours.fields:
        if (found := fields.get(field.name)) is None:
            differences.append(f"no column {field.name} there")
        elif found != field:
            layouts = [f"{f.dtype}{list(f.shape)}" for f in (found, field)]
            differences.append(f"column {field.name} is {layouts[0]} there, {layouts[1]} here")
    if differences:
        raise CheckpointError(f"holds other records: {'; '.join(differences)}")
