"""A number for every life of a shard, counted in its directory: keys of an earlier life are stale."""

from __future__ import annotations

import os
import secrets

import google_crc32c

from replay_server.disk import Disk, OsDisk
from replay_server.errors import JournalError, StorageFull

_NAME = "incarnation"


def next_incarnation(directory: str, disk: Disk | None = None, *, first: int | None = None) -> int:
    """The number of the life that starts now; on disk for good before it is returned.

    Args:
        directory: the shard's own; made when it is missing.
        disk: where it lies; the operating system's by default.
        first: the number of the first life; by default drawn at random, so that the keys of a shard whose directory
            was removed do not fit the next one's records.

    Returns:
        A u32, one more than the last time (after 2^32 - 1 comes 0).

    Raises:
        JournalError: the file is damaged or cannot be read.
        StorageFull: it could not be written; nothing was changed.
    """
    disk = disk or OsDisk()
    path = os.path.join(directory, _NAME)
    try:
        disk.makedirs(directory)
        text = disk.read(path) if _NAME in disk.list(directory) else None
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error.strerror}") from None
    if first is None:
        first = secrets.randbits(31)
    life = first if text is None else (_parse(path, text) + 1) % 2**32
    try:
        _write(disk, directory, path, b"%d %08x\n" % (life, google_crc32c.value(b"%d" % life)))
    except OSError as error:
        raise StorageFull(
            f"{path}: cannot be written: {error.strerror}; make room on this disk, then start again"
        ) from None
    return life


def _parse(path: str, text: bytes) -> int:
    try:
        number, checksum = text.split()
        life = int(number)
        if int(checksum, 16) != google_crc32c.value(b"%d" % life) or not 0 <= life < 2**32:
            raise ValueError
    except ValueError:
        raise JournalError(
            f"{path}: damaged; remove it once every client of this shard has been restarted (they hold its keys)"
        ) from None
    return life


def _write(disk: Disk, directory: str, path: str, text: bytes) -> None:
    """Beside, then renamed: a crash leaves the old number or the new one."""
    beside = path + ".new"
    handle = disk.open(beside)
    try:
        disk.truncate(handle, 0)
        if disk.write(handle, 0, [text]) != len(text):
            raise OSError(28, os.strerror(28))
        disk.fsync(handle)
    finally:
        disk.close(handle)
    disk.rename(beside, path)
    disk.fsync_dir(directory)
