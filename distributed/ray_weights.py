"""Weights under Ray: a small actor fetches the newest version from the learner; others pull when it is newer."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from distributed.event_log import EventLog
from distributed.identity import Identity
from distributed.monitoring.exporter import served_at
from distributed.monitoring.worker_numbers import StoreNumbers
from learners.weights import WeightSnapshot
from replay_server.errors import WorkerDied

FETCHED = "weights"
"""The concurrency group of `fetch_weights`, so that it is answered while the learner computes."""

PUBLISHER_OPTIONS = {"concurrency_groups": {FETCHED: 1}}
"""What Ray has to know of a class that publishes."""

_POLL_SECONDS = 0.002  # between two looks at a pending request: well under a vector step's worth of staleness
_WAIT_SECONDS = 10.0
_FETCH_SECONDS = 30.0
_MOST_READERS = 20_000
_BACK_SECONDS = 60.0
_AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class StoreState:
    """A word that is another one after every restart, the newest version (0: none), and where Prometheus finds it."""

    life: str
    version: int
    metrics: str | None = None


class WeightStore:
    """Owns the newest published snapshot, so that it survives the learner. Run as an async Ray actor.

    It fetches what a learner announces: the answer of a call belongs to the caller, so one copy into the object store
    of the learner's node is all that is made of a version, and nodes with readers bring one each over the network.
    What is announced while it fetches may never be fetched: only the newest is worth it.

    Ray itself restarts it, empty, under the same handle; the learner then publishes again.
    """

    RAY_OPTIONS = {"max_concurrency": _MOST_READERS}  # noqa: RUF012  more calls than that wait for one of them to end

    def __init__(self, identity: Identity) -> None:
        EventLog(identity).start()
        self._life = secrets.token_hex(8)
        self._version = 0
        self._held: Any = None
        self._newer = asyncio.Event()
        self._announced = 0
        self._learner: Any = None
        self._fetching = False
        self._numbers = StoreNumbers()
        self._metrics = served_at(identity, self._numbers)

    async def state(self) -> StoreState:
        """What it holds."""
        return StoreState(self._life, self._version, self._metrics)

    async def announce(self, version: int, learner: Any) -> None:
        """A learner has a version: its newest is fetched now, or when the fetch under way has ended."""
        if version <= self._announced:  # late, of a learner that has ended
            return
        self._announced, self._learner = version, learner
        if self._fetching:
            return
        self._fetching = True
        try:
            while self._version < self._announced:
                await self._fetch(self._learner)
        finally:
            self._fetching = False

    async def _fetch(self, learner: Any) -> None:
        number, snapshot = learner.fetch_weights.remote()
        try:
            version = await asyncio.wait_for(number, _FETCH_SECONDS)
        except (RayError, TimeoutError):  # it has ended, or its node is cut off; the next one publishes versions above
            if learner is self._learner:
                self._announced = self._version
            return
        if version > self._version:
            self._version, self._held = version, snapshot
            self._numbers.version = version
            self._numbers.received += 1
            self._newer.set()
            self._newer = asyncio.Event()

    async def wait_newer(self, version: int, timeout_s: float) -> list[Any]:
        """[reference] to the newest snapshot as soon as its version is above `version`; [] after `timeout_s`."""
        if self._version <= version:
            self._numbers.waiters += 1
            try:
                await asyncio.wait_for(self._newer.wait(), timeout_s)
            except TimeoutError:
                return []
            finally:
                self._numbers.waiters -= 1
        return [self._held]


class RayWeightSource:
    """Pulls from the store without ever waiting: one request is always pending and looked at now and then."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._pending: Any = None
        self._arriving: Any = None
        self._next_look = 0.0

    def latest(self, newer_than: int) -> WeightSnapshot | None:
        """The newest snapshot with version > newer_than that has arrived, or None."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + _POLL_SECONDS
        try:
            snapshot = self._arrived(newer_than)
        except RayError:  # the store ended and took its snapshot along; it is back soon
            self._pending = self._arriving = None
            return None
        return snapshot if snapshot is not None and snapshot.version > newer_than else None

    def _arrived(self, newer_than: int) -> WeightSnapshot | None:
        if self._arriving is None:
            if self._pending is None:
                self._pending = self._store.wait_newer.remote(newer_than, _WAIT_SECONDS)
            if not _has_come(self._pending):
                return None
            answer, self._pending = ray.get(self._pending), None
            if not answer:
                return None
            [self._arriving] = answer
        if not _has_come(self._arriving):  # it is on its way to this node
            return None
        snapshot: WeightSnapshot = ray.get(self._arriving)
        self._arriving = None
        known = max(newer_than, snapshot.version)
        self._pending = self._store.wait_newer.remote(known, _WAIT_SECONDS)  # on its way while the actor acts
        return snapshot

    def newest(self) -> WeightSnapshot:
        """The newest snapshot, waited for, also while the store comes back.

        Raises:
            WorkerDied: there was none within a minute.
        """
        deadline = time.monotonic() + _BACK_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = ray.get(self._store.wait_newer.remote(0, _WAIT_SECONDS), timeout=2 * _WAIT_SECONDS)
                if answer:
                    snapshot: WeightSnapshot = ray.get(answer[0], timeout=_WAIT_SECONDS)
                    return snapshot
            except RayError:  # the store has ended; Ray restarts it, and the learner publishes again
                time.sleep(_AGAIN_SECONDS)
        raise WorkerDied(f"the weight store has had no policy for {_BACK_SECONDS:.0f} s")


class RayWeightSink:
    """Tells the store what there is to fetch, and never waits.

    For an actor that is made with `PUBLISHER_OPTIONS` and has this method::

        @ray.method(concurrency_group=FETCHED, num_returns=2)
        def fetch_weights(self):
            return self._sink.fetched()
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._newest: WeightSnapshot | None = None
        self.published = 0
        self.published_bytes = 0
        self.seconds = 0.0
        """For which `publish` held its callers up."""

    def newest_version(self, known: int) -> int:
        """The newest version of the store, or the known one where the store holds none above it."""
        try:
            state: StoreState = ray.get(self._store.state.remote(), timeout=_WAIT_SECONDS)
        except RayError:
            return known
        return max(state.version, known)

    def publish(self, snapshot: WeightSnapshot) -> None:
        """Keep a snapshot for the store, in place of the one before, and tell it so."""
        begin = time.monotonic()
        self._newest = snapshot
        self._store.announce.remote(snapshot.version, ray.get_runtime_context().current_actor)
        self.published += 1
        self.published_bytes = snapshot.blob.nbytes
        self.seconds += time.monotonic() - begin

    def fetched(self) -> tuple[int, WeightSnapshot]:
        """The newest, for the store; in any thread."""
        assert self._newest is not None
        return self._newest.version, self._newest


def _has_come(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])
