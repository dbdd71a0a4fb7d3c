"""Snapshots that clients ask a server's shard for: waited for, or begun and left to be written."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from replay_server.errors import CheckpointError, HeadraceError, InvalidRecord
from replay_server.local import snapshot_name
from replay_server.messages import SavedFile
from replay_server.shard import Shard
from replay_server.snapshot import PACE
from replay_server.snapshot_file import stated_checksum

_SAVES = 2
"""One that writes and one that waits for it, or for a compaction; others would only take threads."""
_LONGEST_PATH = 4096
_PIECE_BYTES = 4 << 20
_LONGEST_FILE = 1 << 60
_CUT_S = 2.0
"""How long a cut waits for a snapshot under way: who asks for one stands still meanwhile."""


@dataclass
class _Begun:
    """The newest snapshot that was begun and left to be written; `error` and `done` are set by its thread."""

    path: Path
    thread: threading.Thread | None = None
    done: bool = False
    error: HeadraceError | None = None


class Saves:
    """Where a shard may write, and what it was told to.

    Args:
        shard: that is saved.
        directory: no file is written outside of it; None refuses all.
    """

    def __init__(self, shard: Shard, directory: Path | None) -> None:
        self._shard = shard
        self._directory = directory
        self._room = threading.BoundedSemaphore(_SAVES)
        self._begun: _Begun | None = None

    def save(self, requested: object) -> str:
        """Write a snapshot into a directory; its name.

        Raises:
            InvalidRecord: the directory is no path.
            CheckpointError: it is outside the shard's own, others are being written, or the file cannot be.
        """
        path = self._target(requested)
        self._take_room()
        try:
            self._shard.save(str(path), pace=PACE)
        finally:
            self._room.release()
        return path.name

    def begin(self, requested: object) -> str:
        """Make the cut of a snapshot and return; a thread writes it. Raises as `save`."""
        path = self._target(requested)
        self._take_room()
        try:
            write = self._shard.begin_save(str(path), pace=PACE, patience_s=_CUT_S)
        except BaseException:
            self._room.release()
            raise
        begun = self._begun = _Begun(path)
        begun.thread = threading.Thread(target=self._write, args=(begun, write), name="snapshot")
        begun.thread.start()
        return path.name

    def outcome(self, requested: object) -> SavedFile:
        """What has become of the snapshot begun for a directory.

        Raises:
            CheckpointError: why it could not be written, or that none was begun, by this life of the shard.
        """
        path, begun = self._target(requested), self._begun
        if begun is None or begun.path != path:
            raise CheckpointError(f"shard {self._shard.table.shard} has not begun {path}: it was started anew since")
        if begun.error is not None:
            raise begun.error
        if not begun.done:
            return SavedFile(str(path), False)
        try:
            return SavedFile(str(path), True, path.stat().st_size, stated_checksum(path))
        except OSError as error:
            raise CheckpointError(f"{path}: written, and gone since: {error.strerror}") from error

    def read(self, requested: object, offset: object) -> bytes:
        """The next few megabytes of a snapshot that is done, from an offset on; empty at its end.

        Raises:
            InvalidRecord: the offset is no whole number from 0 on.
            CheckpointError: as `outcome`, or the snapshot is not done or cannot be read.
        """
        path = self._done(requested)
        if not isinstance(offset, int) or not 0 <= offset < _LONGEST_FILE:
            raise InvalidRecord("an offset is a whole number of bytes")
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(_PIECE_BYTES)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error

    def drop(self, requested: object) -> None:
        """Remove a snapshot that is done, and its directory where that is empty then: its asker has another copy.

        Raises:
            CheckpointError: as `outcome`, or the snapshot is not done.
        """
        path = self._done(requested)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are in it
            path.parent.rmdir()

    def join(self) -> None:
        """Wait for the thread of a snapshot that its shard has been told to give up."""
        if self._begun is not None and self._begun.thread is not None:
            self._begun.thread.join()

    def _done(self, requested: object) -> Path:
        file = self.outcome(requested)
        if not file.done:
            raise CheckpointError(f"{file.path}: is being written")
        return Path(file.path)

    def _write(self, begun: _Begun, write: Callable[[], None]) -> None:
        try:
            write()
            begun.done = True
        except HeadraceError as error:
            begun.error = error
        except Exception as error:  # whoever asks has to hear of it
            begun.error = CheckpointError(f"{begun.path}: cannot be written: {str(error) or type(error).__name__}")
        finally:
            self._room.release()

    def _take_room(self) -> None:
        if not self._room.acquire(blocking=False):
            raise CheckpointError(
                f"shard {self._shard.table.shard} is saving itself, and another save waits; try again later"
            )

    def _target(self, requested: object) -> Path:
        shard = self._shard.table.shard
        if not isinstance(requested, str):
            raise InvalidRecord("a save names its directory as text")
        if self._directory is None:
            raise CheckpointError(f"shard {shard} was started without a directory and cannot save")
        root = self._directory.resolve()
        target = _path_inside(root, requested)
        if not target.is_relative_to(root):
            raise CheckpointError(f"{requested!r} is outside the directory this shard may write to, {root}")
        return target / snapshot_name(shard)


def _path_inside(root: Path, requested: str) -> Path:
    """Where a path of a client's leads; raises InvalidRecord for one that no file system takes."""
    try:
        if "\0" in requested or len(requested.encode()) > _LONGEST_PATH:
            raise ValueError
        return (root / requested).resolve()
    except (ValueError, OSError, RuntimeError):  # a lone surrogate, a part too long, links in a circle
        raise InvalidRecord(f"a save's directory is no path: {requested[:80]!a}") from None
