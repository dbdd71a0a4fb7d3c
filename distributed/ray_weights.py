"""Weights under Ray: a small actor owns the newest version in the object store; others pull when it is newer."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from distributed.event_log import EventLog
from distributed.identity import Identity
from learners.weights import WeightSnapshot
from replay_server.errors import WorkerDied

_POLL_SECONDS = 0.01  # between two looks at a pending request: well under a vector step's worth of staleness
_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class StoreState:
    """A word that is another one after every restart, and the newest version, 0 when there is none."""

    life: str
    version: int


class WeightStore:
    """Owns the newest published snapshot, so that it survives the learner. Run as an async Ray actor.

    Ray itself restarts it, empty, under the same handle; the learner then publishes again.
    """

    def __init__(self, identity: Identity) -> None:
        EventLog(identity).info("start", host=socket.gethostname())
        self._life = secrets.token_hex(8)
        self._version = 0
        self._held: Any = None
        self._newer = asyncio.Event()

    async def state(self) -> StoreState:
        """What it holds."""
        return StoreState(self._life, self._version)

    async def publish(self, snapshot: WeightSnapshot) -> None:
        """Keep a snapshot as the newest: one put, read by any number of actors without another copy."""
        if snapshot.version < self._version:  # late, of a learner that has ended
            return
        self._held = ray.put(snapshot)
        self._version = snapshot.version
        self._newer.set()
        self._newer = asyncio.Event()

    async def wait_newer(self, version: int, timeout_s: float) -> list[Any]:
        """[reference] to the newest snapshot as soon as its version is above `version`; [] after `timeout_s`."""
        if self._version <= version:
            try:
                await asyncio.wait_for(self._newer.wait(), timeout_s)
            except TimeoutError:
                return []
        return [self._held]


class RayWeightSource:
    """Pulls from the store without ever waiting: one request is always pending and looked at now and then."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._pending: Any = None
        self._next_look = 0.0

    def latest(self, newer_than: int) -> WeightSnapshot | None:
        """The newest snapshot with version > newer_than that has arrived, or None."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + _POLL_SECONDS
        if self._pending is None:
            self._pending = self._store.wait_newer.remote(newer_than, _WAIT_SECONDS)
        if not ray.wait([self._pending], timeout=0)[0]:
            return None
        try:
            answer = ray.get(self._pending)
            snapshot: WeightSnapshot | None = ray.get(answer[0], timeout=_WAIT_SECONDS) if answer else None
        except RayError:  # the store ended and took its snapshot along; it is back soon
            self._pending = None
            return None
        known = newer_than if snapshot is None else max(newer_than, snapshot.version)
        self._pending = self._store.wait_newer.remote(known, _WAIT_SECONDS)  # on its way while the actor acts
        return snapshot if snapshot is not None and snapshot.version > newer_than else None

    def newest(self) -> WeightSnapshot:
        """The newest snapshot, waited for."""
        try:
            answer = ray.get(self._store.wait_newer.remote(0, _WAIT_SECONDS), timeout=2 * _WAIT_SECONDS)
            if not answer:
                raise WorkerDied("no policy has been published yet")
            snapshot: WeightSnapshot = ray.get(answer[0], timeout=_WAIT_SECONDS)
        except RayError as error:
            raise WorkerDied("the weight store has ended; it is being restarted") from error
        return snapshot


class RayWeightSink:
    """Hands snapshots to the store; waits only for the one before, so that at most one is under way."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._sent: Any = None

    def newest_version(self, known: int) -> int:
        """The newest version of the store, or the known one where the store holds none above it."""
        try:
            state: StoreState = ray.get(self._store.state.remote(), timeout=_WAIT_SECONDS)
        except RayError:
            return known
        return max(state.version, known)

    def publish(self, snapshot: WeightSnapshot) -> None:
        """Send a snapshot on."""
        if self._sent is not None:
            with suppress(RayError):  # lost with the store: this one takes its place
                ray.get(self._sent, timeout=30.0)
        self._sent = self._store.publish.remote(snapshot)
