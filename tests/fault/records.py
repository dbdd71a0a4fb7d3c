"""The records of the fault tests: every one has an id of its own and a body that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from replay_server import Field, RecordSpec
from replay_server.client import ReplayClient

SPEC = RecordSpec((Field("id", "int64"), Field("x", "float32", (4,))), {"gamma": "0.99"})
SPEC_DOCUMENT = {
    "fields": [{"name": "id", "dtype": "int64"}, {"name": "x", "dtype": "float32", "shape": [4]}],
    "semantics": {"gamma": "0.99"},
}


def rows(first: int, count: int) -> dict[str, NDArray[Any]]:
    """Records `first` .. `first + count - 1`."""
    ids = np.arange(first, first + count, dtype=np.int64)
    return {"id": ids, "x": body(ids)}


def body(ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[B, 4], what the records of these ids must carry: a torn or mixed-up record shows."""
    return ((ids[:, None] * np.array([1, 7, 31, 127])) % 8191).astype(np.float32)


def check_bodies(columns: dict[str, NDArray[Any]]) -> None:
    """Raises AssertionError naming the first record whose body is not its own."""
    wrong = (columns["x"] != body(columns["id"])).any(axis=1)
    assert not wrong.any(), f"record {columns['id'][wrong][0]} carries {columns['x'][wrong][0]}"


def stored_ids(replay: ReplayClient, *directories: Path) -> NDArray[np.int64]:
    """Ids of everything the shards hold, by a snapshot of shard i into `directories[i]`, where it was started."""
    names = replay.save(".")
    return np.concatenate([ids_in(place / name) for place, name in zip(directories, names, strict=True)])


def ids_in(snapshot: Path) -> NDArray[np.int64]:
    """Ids of the records of one snapshot, each with the right body."""
    with h5py.File(snapshot, "r") as file:
        columns = {name: file[f"columns/{name}"][()] for name in ("id", "x")}
    check_bodies(columns)
    ids: NDArray[np.int64] = columns["id"]
    return ids
