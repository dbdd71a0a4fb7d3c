"""Clients' memory that a shard has opened: checked, bounded, and let go when the client's process ends."""

from __future__ import annotations

import fcntl
import hmac
import mmap
import os
import secrets
import select
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.arena import ARENA_BYTES, MEMFD_NAME, NONCE_BYTES, SEALS
from replay_server.errors import InvalidRecord, NotShared

_CHECK_S = 1.0
_MOST = 256


@dataclass(frozen=True)
class _Attachment:
    memory: NDArray[np.uint8]
    process: int
    """A pidfd: readable when the process has ended."""


class Attachments:
    """Sessions, each the memory of one client. Thread-safe.

    The memory belongs to the clients, who have touched it; a shard only has it in its address space. A client that has
    a shard write where it has no pages makes them in the shard's name: clients of the same user are trusted not to.

    Args:
        most: sessions at a time.
        largest: bytes of one of them.
    """

    def __init__(self, *, most: int = _MOST, largest: int = ARENA_BYTES) -> None:
        self._most = most
        self._largest = largest
        self._by_session: dict[int, _Attachment] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._by_session)

    def attach(self, ticket: Mapping[str, Any]) -> int:
        """Open the memory a client describes (`Arena.ticket`); returns the session's number.

        Raises:
            NotShared: it is not there, not what the client says, or too much.
            InvalidRecord: not a ticket.
        """
        try:
            pid, descriptor, inode, size = (int(ticket[name]) for name in ("pid", "descriptor", "inode", "size"))
            nonce = bytes.fromhex(ticket["nonce"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InvalidRecord("a ticket for shared memory has pid, descriptor, inode, size and nonce") from None
        with self._lock:
            if self._ended.is_set():
                raise NotShared("this shard is ending")
            if size > self._largest:
                raise NotShared(f"shared memory of {size} bytes, a session has at most {self._largest}")
            if len(self._by_session) >= self._most:
                raise NotShared(f"this shard shares memory with {len(self._by_session)} clients already")
            attachment = _open(pid, descriptor, inode, size, nonce)
            session = secrets.randbits(53)  # a whole number in every language's JSON
            self._by_session[session] = attachment
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="attachments", daemon=True)
                self._keeper.start()
        return session

    def memory(self, session: int) -> NDArray[np.uint8]:
        """All of a client's memory; raises NotShared for a session that is not there."""
        try:
            return self._by_session[session].memory
        except KeyError:
            raise NotShared("this shard does not know that session of shared memory") from None

    def part(self, session: int, offset: int, length: int) -> NDArray[np.uint8]:
        """Some bytes of a client's memory.

        Raises:
            NotShared: an unknown session. InvalidRecord: a part outside the memory, or at an offset that is no
                multiple of 16.
        """
        memory = self.memory(session)
        if offset % 16 or offset + length > len(memory):
            raise InvalidRecord(f"{length} bytes at {offset} do not lie inside {len(memory)} bytes of shared memory")
        return memory[offset : offset + length]

    def detach(self, session: int) -> None:
        """Let a client's memory go once calls that write into it have ended."""
        with self._lock:
            self._detach(session)

    def detach_ended(self) -> None:
        """Let the memory of processes that have ended go."""
        with self._lock:
            watch, sessions = select.poll(), {}
            for session, attachment in self._by_session.items():
                watch.register(attachment.process, select.POLLIN)
                sessions[attachment.process] = session
            for process, _ in watch.poll(0):
                self._detach(sessions[process])

    def close(self) -> None:
        self._ended.set()
        if self._keeper is not None:
            self._keeper.join()
        for session in list(self._by_session):
            self.detach(session)

    def _detach(self, session: int) -> None:
        attachment = self._by_session.pop(session, None)
        if attachment is not None:
            os.close(attachment.process)

    def _keep(self) -> None:
        while not self._ended.wait(_CHECK_S):
            self.detach_ended()


def _open(pid: int, descriptor: int, inode: int, size: int, nonce: bytes) -> _Attachment:
    """Open a descriptor of another process: nothing but a sealed memfd of ours, made by who sent the nonce."""
    if pid <= 0 or descriptor < 0 or size <= NONCE_BYTES or len(nonce) != NONCE_BYTES:
        raise InvalidRecord("a ticket for shared memory with a number out of range")
    path = f"/proc/{pid}/fd/{descriptor}"
    process = opened = -1
    try:
        process = os.pidfd_open(pid)  # before the checks: the process they pass for is the one watched
        if not os.readlink(path).startswith(f"/memfd:{MEMFD_NAME}"):
            raise NotShared("what the client names is not its shared memory")
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode) or (status.st_ino, status.st_size) != (inode, size):
            raise NotShared("what the client names is not its shared memory")
        if fcntl.fcntl(opened, fcntl.F_GET_SEALS) & SEALS != SEALS:
            raise NotShared("shared memory that is not sealed")
        mapped = mmap.mmap(opened, size)
        if not hmac.compare_digest(mapped[:NONCE_BYTES], nonce):
            raise NotShared("what the client names is not its shared memory")
        attachment = _Attachment(np.frombuffer(mapped, np.uint8), process)
        process = -1
        return attachment
    except (OSError, OverflowError, ValueError) as error:
        raise NotShared(f"the client's memory cannot be opened (another host or user?): {error}") from None
    finally:
        for number in (process, opened):
            if number >= 0:
                os.close(number)
