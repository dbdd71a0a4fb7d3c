"""The part of a checkpoint that is written after its cut, while training goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from learners.checkpoint import save_learner, sync
from replay_server.client import ReplayClient
from replay_server.errors import CheckpointError, ReplayTimeout, Unavailable
from replay_server.messages import SavedFile
from replay_server.snapshot_file import stated_checksum

_LOOK_SECONDS = 0.25
_SILENT_SECONDS = 60.0
"""How long a shard may be out of reach; it writes on meanwhile, or says afterwards that it was started anew."""
_STUCK_SECONDS = 1800.0
"""How long a shard may have nothing new to tell; 90 GB at 50 MB/s, as it tells of a file only when that is written."""


def write_cut(directory: Path, arrays: Mapping[str, NDArray[Any]], replay: ReplayClient | None) -> None:
    """Write the learner's state, and wait until every shard has written its own.

    Args:
        directory: of the checkpoint; the shards know it by its name.
        arrays: of the learner.
        replay: shards that have begun to save themselves; None where they keep their own.

    Raises:
        CheckpointError: something cannot be written, or a shard died or made no progress meanwhile.
    """
    save_learner(arrays, directory)
    if replay is None:
        return
    for shard, file in enumerate(_await_saved(replay, directory.name)):
        path = directory / Path(file.path).name
        if not _is_here(path, file):
            _carry_over(replay, shard, directory.name, path, file)


def _is_here(path: Path, file: SavedFile) -> bool:
    """Whether what a shard has written is seen from here: it is on this node, or on a disk that both share."""
    return path.is_file() and path.stat().st_size == file.bytes and stated_checksum(path) == file.checksum


def _carry_over(replay: ReplayClient, shard: int, name: str, path: Path, file: SavedFile) -> None:
    """Copy a snapshot from a disk of another node, and remove it there."""
    try:
        with path.open("wb") as copy:
            for piece in replay.read_saved(shard, name):
                copy.write(piece)
        sync(path)
        replay.drop_saved(shard, name)
    except (OSError, ReplayTimeout, Unavailable) as error:
        raise CheckpointError(f"{path}: cannot be copied from the node of its shard: {error}") from error
    if not _is_here(path, file):
        raise CheckpointError(f"{path}: is not what its shard has written; was it changed there?")


def _await_saved(replay: ReplayClient, name: str) -> list[SavedFile]:
    heard = time.monotonic()
    moved: dict[int, tuple[SavedFile, float]] = {}  # what a shard told last, and since when
    while True:
        try:
            files = replay.saved(name)
            heard = time.monotonic()
            if all(file.done for file in files):
                return files
            _refuse_stuck(files, moved, heard)
        except (Unavailable, ReplayTimeout) as error:
            if time.monotonic() - heard > _SILENT_SECONDS:
                raise CheckpointError(f"a shard that was to save itself does not answer: {error}") from error
        time.sleep(_LOOK_SECONDS)


def _refuse_stuck(files: list[SavedFile], moved: dict[int, tuple[SavedFile, float]], now: float) -> None:
    for shard, file in enumerate(files):
        told, since = moved.setdefault(shard, (file, now))
        if told != file:
            moved[shard] = file, now
        elif not file.done and now - since > _STUCK_SECONDS:
            raise CheckpointError(
                f"shard {shard} has not written {file.path} in {now - since:.0f} s; does its disk still take anything?"
            )
