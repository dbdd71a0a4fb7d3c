"""Keeps the shards of a run going: watches each, and starts those that end again from what they had on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed.processes import Processes, Role
from distributed.runtime import Casualties
from distributed.seat import Seat
from distributed.shard_host import Served, ShardHost
from distributed.shard_plan import ShardPlan
from replay_server.errors import HeadraceError, WorkerDied

_ANYWHERE = "127.0.0.1:0"
_START_SECONDS = 120.0  # with a journal to recover
_WATCH_SECONDS = 0.5
_LATE_SECONDS = 30.0
_STOP_SECONDS = 3.0


@dataclass
class _Place:
    """One shard of the run, whichever process it is."""

    index: int
    seat: Seat
    served: Served | None = None  # as it last began to serve
    began_with: int = 0  # records inserted before this start of the run
    lost: int = 0
    down_since: float | None = None


class ShardSupervisor:
    """Shards as children of hosts, each host with one short call in flight that tells when its shard has ended.

    A shard that ends or does not answer any more is started again at its address, from its journal, or where it keeps
    none from the newest complete checkpoint of the run: at once the first time, after growing pauses when it fails
    again before it has served for a while; then the run ends. Clients take it back by themselves.

    Args:
        plan: configs of the shards.
        processes: runs the hosts.
        logs: directory for the shards' logs and the reasons of failures.
        clock: monotonic seconds.
    """

    def __init__(self, plan: ShardPlan, processes: Processes, logs: Path, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._processes = processes
        self._logs = logs
        self._clock = clock
        log_file = logs / "shard_failures.log"
        self._places = [
            _Place(index, Seat(f"replay shard {index}", processes, log_file, clock)) for index in range(plan.count)
        ]
        self._notices: list[str] = []
        for place in self._places:
            self._start(place)

    def wait_ready(self) -> tuple[str, ...]:
        """The addresses of all shards, once they serve.

        Raises:
            WorkerDied: one ended before it served, or did not start in time.
        """
        for place in self._places:
            seat = place.seat
            place.served = self._processes.get(seat.call, _START_SECONDS, seat.name)
            place.began_with = place.served.inserted
            self._watch(place)
        return tuple(place.served.address for place in self._places if place.served is not None)

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
            if isinstance(answer, Served):
                self._back(place, answer, told)
            elif answer is not None:
                self._down(place, WorkerDied(f"{seat.name}: {answer}"), keep_host=True)
                continue
            self._watch(place)

    def casualties(self) -> Casualties:
        """Restarts, and records that shards had acknowledged and did not have any more."""
        return Casualties(sum(place.seat.restarts for place in self._places), sum(place.lost for place in self._places))

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
        address = _ANYWHERE if place.served is None else place.served.address
        place.seat.fill(ShardHost, Role.SHARD)
        begin = place.seat.handle.begin.remote(self._plan.shard(place.index, address), self._logs)
        place.seat.issue(begin, _START_SECONDS)

    def _watch(self, place: _Place) -> None:
        place.seat.issue(place.seat.handle.watch.remote(_WATCH_SECONDS), _LATE_SECONDS)

    def _down(self, place: _Place, error: HeadraceError, *, keep_host: bool) -> None:
        if place.down_since is None:
            place.down_since = self._clock()
        place.seat.vacate(error, keep_process=keep_host)

    def _back(self, place: _Place, served: Served, acknowledged: int) -> None:
        """It serves again. Everything it ever acknowledged counts as inserted, unless it has forgotten it."""
        lost = max(place.began_with + acknowledged - served.inserted - place.lost, 0)
        place.lost += lost
        place.served = served
        seconds = 0.0 if place.down_since is None else self._clock() - place.down_since
        place.down_since = None
        self._notices.append(
            f"{place.seat.name} is back after {seconds:.1f} s with {served.size:,} records"
            + (f"; {lost:,} that it had acknowledged are lost" if lost else "")
        )
