"""A client's side of shared memory: offered to the shard, lost when the shard forgets it, offered again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from replay_server.arena import Arena, Region
from replay_server.errors import HeadraceError, NotShared


class Shared(NamedTuple):
    """A leased region and the session under which the shard knows the memory it is in."""

    session: int
    region: Region


class Sharing:
    """At most one arena that the shard has attached. Thread-safe.

    An arena is given up for a new one as soon as a call that named it ended without an answer, because the shard may
    still write where the reply should have gone; batches in it stay as they are.

    Args:
        offer: starts an Attach call with a ticket; its answer goes to `answered`, from any thread.
    """

    def __init__(self, offer: Callable[[Arena, Mapping[str, Any]], None]) -> None:
        self.refusal: HeadraceError | None = None
        """Why nothing is shared."""
        self._offer = offer
        self._lock = threading.Lock()
        self._arena: Arena | None = None
        self._session: int | None = None
        self._closed = False
        self._settled = threading.Event()

    @property
    def session(self) -> int | None:
        """The session's number while memory is shared."""
        return self._session

    def begin(self, replaces: int | None = None) -> None:
        """Offer memory, if none is shared or on offer, in place of an earlier session."""
        with self._lock:
            if self._arena is not None or self._closed:
                return
            try:
                arena = self._arena = Arena()
            except OSError as error:
                self.refusal = NotShared(f"this machine has no memory to share: {error}")
                self._settled.set()
                return
        self._offer(arena, {**arena.ticket(), "replaces": replaces})

    def answered(self, arena: Arena, answer: int | HeadraceError) -> None:
        """The shard's answer to an offer: the session's number, or why not."""
        with self._lock:
            if arena is not self._arena:
                return
            if isinstance(answer, HeadraceError):
                self.refusal = answer
                self._drop()
            else:
                self._session = answer
            self._settled.set()

    def wait(self, timeout_s: float) -> None:
        """Until the first offer was answered."""
        self._settled.wait(timeout_s)

    def lease(self, size: int) -> Shared | None:
        """A region for a frame of `size` bytes; None while nothing is shared or no room is left."""
        with self._lock:  # over the lease too: an arena given up meanwhile has closed its descriptor
            if self._arena is None or self._session is None:
                return None
            region = self._arena.lease(size)
            return None if region is None else Shared(self._session, region)

    def lost(self, session: int) -> None:
        """The shard does not know the session, or may write into it at any time: share other memory from now on."""
        with self._lock:
            if session != self._session:
                return
            self._drop()
        self.begin(replaces=session)

    def close(self) -> int | None:
        """Share nothing any more; returns the session to detach."""
        with self._lock:
            session, self._closed = self._session, True
            self._drop()
        return session

    def _drop(self) -> None:
        if self._arena is not None:
            self._arena.close()
        self._arena = self._session = None
