"""Keeps the shards of a run going: watches each, and starts those that end again from what they had on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed.event_log import EventLog
from distributed.processes import Processes, Role
from distributed.replay_access import ReplayAccess
from distributed.run_secrets import RunSecrets
from distributed.runtime import Casualties
from distributed.seat import Seat
from distributed.shard_host import Served, ShardHost
from distributed.shard_plan import ShardPlan
from distributed.worker_state import WorkerState
from replay_server.errors import HeadraceError, Unavailable, WorkerDied

_SAME_PORT_TRIES = 3  # then the port is somebody else's, and another will do
_START_SECONDS = 600.0  # with a large journal to recover
_WATCH_SECONDS = 0.5
_LATE_SECONDS = 30.0
_STOP_SECONDS = 3.0


@dataclass
class _Place:
    """One shard of the run, whichever process it is."""

    index: int
    seat: Seat
    ip: str = ""  # of its host
    served: Served | None = None  # as it last began to serve
    began_with: int = 0  # records inserted before this start of the run
    forgotten: int = 0  # records that it had counted as inserted
    lost: int = 0  # those of them that it still held
    down_since: float | None = None
    arriving: bool = True  # its host waits for room and for its process

    def state(self) -> WorkerState:
        """How it is."""
        if self.served is None or self.arriving or self.down_since is not None:
            return self.seat.state("starts" if self.arriving else "begins")
        metrics = () if self.served.metrics is None else (self.served.metrics,)
        return dataclasses.replace(self.seat.state("serves", self.served.address), metrics=metrics)


class ShardSupervisor:
    """Shards as children of hosts, each host with one short call in flight that tells when its shard has ended.

    A shard that ends or does not answer any more is started again, at its address while its node is there: from its
    journal, or where it keeps none from the newest complete checkpoint of the run. At once the first time, after
    growing pauses when it fails again before it has served for a while; then the run ends. Clients take it back by
    themselves, and are told where it is when that is elsewhere.

    Args:
        plan: configs of the shards.
        secrets: what they ask of their clients.
        processes: runs the hosts.
        log: the driver's.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        plan: ShardPlan,
        processes: Processes,
        secrets: RunSecrets,
        log: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._secrets = secrets
        self._processes = processes
        self._clock = clock
        self._places = [
            _Place(index, Seat(f"replay shard {index}", log.identity.of(Role.SHARD, index), processes, log, clock))
            for index in range(plan.count)
        ]
        self._notices: list[str] = []
        self._moved: dict[int, str] = {}
        for place in self._places:
            self._start(place)

    def wait_ready(self) -> ReplayAccess:
        """Wait until all shards serve.

        Raises:
            WorkerDied: one ended before it served, or did not start in time.
        """
        for place in self._places:
            seconds = self._processes.room_seconds
            self._begin(place, self._processes.get(place.seat.call, seconds, f"the host of {place.seat.name}"))
        for place in self._places:
            place.served = self._processes.get(place.seat.call, _START_SECONDS, place.seat.name)
            place.began_with = place.served.inserted
            self._watch(place)
        return ReplayAccess(self._addresses(), self._secrets.client())

    def pending(self) -> list[Any]:
        """Calls in flight."""
        return [place.seat.call for place in self._places if place.seat.call is not None]

    def collect(self, acknowledged: Sequence[int]) -> None:
        """See who has ended, and start again whose pause is over.

        Args:
            acknowledged: records that each shard has acknowledged since the run began.

        Raises:
            WorkerDied: a shard has failed too often in a row.
        """
        for place, told in zip(self._places, acknowledged, strict=True):
            seat = place.seat
            if seat.vacant:
                if seat.due:
                    self._start(place)
                continue
            try:
                if not seat.answered():
                    continue
                answer = seat.answer()
            except HeadraceError as error:
                self._down(place, error, keep_host=False)
                continue
            if place.arriving:
                self._begin(place, answer)
                continue
            if isinstance(answer, Served):
                self._back(place, answer, told)
            elif answer is not None:
                self._down(place, WorkerDied(f"{seat.name}: {answer}"), keep_host=True)
                continue
            self._watch(place)

    def down(self) -> frozenset[int]:
        """Shards that are being started again."""
        return frozenset(place.index for place in self._places if place.down_since is not None)

    def take_moved(self) -> Mapping[int, str]:
        """HOST:PORT of the shards that came back at other addresses since the last call."""
        moved, self._moved = self._moved, {}
        return moved

    def casualties(self) -> Casualties:
        """Restarts, and records that shards had acknowledged and did not have any more."""
        return Casualties(sum(place.seat.restarts for place in self._places), sum(place.lost for place in self._places))

    def workers(self) -> tuple[WorkerState, ...]:
        """How every shard is, and where."""
        return tuple(place.state() for place in self._places)

    def take_notices(self) -> tuple[str, ...]:
        """What a person should be told since the last call."""
        notices, self._notices = tuple(self._notices), []
        return notices

    def stop(self) -> None:
        """Drain and end every shard; their journals go with them."""
        stops = [
            place.seat.handle.stop.remote(_STOP_SECONDS, self._plan.directory(place.index))
            for place in self._places
            if place.seat.handle is not None
        ]
        for call in stops:
            try:
                self._processes.get(call, 3 * _STOP_SECONDS, "a replay shard")
            except HeadraceError:
                continue  # it is gone, or ends with its host
        for place in self._places:
            place.seat.stop()

    def _start(self, place: _Place) -> None:
        host_is_there = place.seat.handle is not None
        place.seat.fill(ShardHost)
        if host_is_there:
            self._begin(place, place.ip)
            return
        place.arriving = True
        place.seat.issue(place.seat.handle.arrive.remote(), self._processes.room_seconds)

    def _begin(self, place: _Place, ip: str) -> None:
        place.arriving, place.ip = False, ip
        port = "0"
        if place.served is not None and place.seat.failures <= _SAME_PORT_TRIES:
            host, _, before = place.served.address.rpartition(":")
            port = before if host == place.ip else port
        config = self._plan.shard(place.index, f"{place.ip}:{port}")
        secrets, client = self._secrets.shard(place.ip), self._secrets.client()
        files, again = self._plan.files, place.served is not None
        begin = place.seat.handle.begin.remote(config, secrets, client, files, again=again)
        place.seat.issue(begin, _START_SECONDS)

    def _addresses(self) -> dict[int, str]:
        return {place.index: place.served.address for place in self._places if place.served is not None}

    def _watch(self, place: _Place) -> None:
        place.seat.issue(place.seat.handle.watch.remote(_WATCH_SECONDS), _LATE_SECONDS)

    def _down(self, place: _Place, error: HeadraceError, *, keep_host: bool) -> None:
        if place.down_since is None:
            place.down_since = self._clock()
        if isinstance(error, Unavailable):  # from its own host it is a failure like any other
            error = WorkerDied(f"{place.seat.name} was started and cannot be reached: {error}")
        place.seat.vacate(error, keep_process=keep_host)

    def _back(self, place: _Place, served: Served, acknowledged: int) -> None:
        """It serves again. Everything it ever acknowledged counts as inserted, unless it has forgotten it."""
        forgotten = max(place.began_with + acknowledged - served.inserted - place.forgotten, 0)
        place.forgotten += forgotten
        lost = min(forgotten, self._plan.capacity)  # the others had been overwritten
        place.lost += lost
        if place.served is not None and place.served.address != served.address:
            self._moved[place.index] = served.address
        place.served = served
        seconds = 0.0 if place.down_since is None else self._clock() - place.down_since
        place.down_since = None
        self._notices.append(
            f"{place.seat.name} is back after {seconds:.1f} s with {served.size:,} records"
            + (f"; {lost:,} that it had acknowledged are lost" if lost else "")
        )
