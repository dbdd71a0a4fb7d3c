"""Weights under Ray: a small actor owns the newest version in the object store; others pull when it is newer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray

from learners.weights import WeightSnapshot
from replay_server.errors import WorkerDied

_POLL_SECONDS = 0.01  # between two looks at a pending request: well under a vector step's worth of staleness
_WAIT_SECONDS = 10.0


class WeightStore:
    """Owns the newest published snapshot, so that it survives the learner. Run as an async Ray actor."""

    def __init__(self) -> None:
        self._version = 0
        self._held: Any = None
        self._newer = asyncio.Event()

    async def publish(self, snapshot: WeightSnapshot) -> None:
        """Keep a snapshot as the newest: one put, read by any number of actors without another copy."""
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
        answer = ray.get(self._pending)
        snapshot: WeightSnapshot | None = ray.get(answer[0]) if answer else None
        known = newer_than if snapshot is None else max(newer_than, snapshot.version)
        self._pending = self._store.wait_newer.remote(known, _WAIT_SECONDS)  # on its way while the actor acts
        return snapshot if snapshot is not None and snapshot.version > newer_than else None

    def newest(self) -> WeightSnapshot:
        """The newest snapshot, waited for."""
        answer = ray.get(self._store.wait_newer.remote(0, _WAIT_SECONDS), timeout=2 * _WAIT_SECONDS)
        if not answer:
            raise WorkerDied("no policy has been published yet")
        snapshot: WeightSnapshot = ray.get(answer[0])
        return snapshot


class RayWeightSink:
    """Hands snapshots to the store; waits only for the one before, so that at most one is under way."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._sent: Any = None

    def publish(self, snapshot: WeightSnapshot) -> None:
        """Send a snapshot on."""
        if self._sent is not None:
            ray.get(self._sent, timeout=30.0)
        self._sent = self._store.publish.remote(snapshot)
