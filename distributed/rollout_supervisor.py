"""Keeps the rollout actors going: collects their reports, replaces those that die, hang or fail."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from actors.loop import ActorReport
from distributed.config import ExperimentConfig
from distributed.cut_off import CutOff
from distributed.event_log import EventLog
from distributed.processes import Processes, Role
from distributed.ray_weights import RayWeightSource
from distributed.ray_workers import ActorPlace, RolloutWorker, Turn
from distributed.replay_access import ReplayAccess
from distributed.runtime import Casualties, Origin
from distributed.seat import Seat
from distributed.worker_state import WorkerState
from replay_server.errors import ConfigError, HeadraceError, Unavailable, WorkerDied

_BEGIN_SECONDS = 120.0  # at least, to build environments on a loaded machine
_POLL_SECONDS = 0.1


class _Stage(Enum):
    ARRIVING = "starts"  # or waits for room
    BEGINNING = "begins"  # builds its environments
    READY = "ready"
    ACTING = "acts"


@dataclass
class _Rollout:
    """One rollout actor of the run, whichever process it is."""

    index: int
    seat: Seat
    cut_off: CutOff
    env_steps: int
    stage: _Stage = _Stage.ARRIVING
    epoch: int = 0
    begun_at: int = 0  # env_steps when this process started
    turn: Turn | None = None  # the last of this process
    acknowledged_before: int = 0  # records of earlier processes that a shard has acknowledged
    quarantined: bool = False

    @property
    def stored(self) -> int:
        """Records of this process that a shard has acknowledged."""
        return 0 if self.turn is None else self.turn.report.stored

    @property
    def given_up(self) -> int:
        """Records of this process that it could not hand over."""
        return 0 if self.turn is None else self.turn.given_up


class RolloutSupervisor:
    """Rollout actors with one call in flight each.

    An actor that dies, hangs or raises is replaced by a new process with the next writer epoch: at once the first
    time, after growing pauses when it fails again before it has worked for a while; then its place is quarantined and
    the run goes on with the others. Actors for which there is no room join when there is.

    Writer ids begin at a number of the run's own start, so that shards which serve one run after another never take
    the records of the second for repeats of the first.

    Args:
        config: the experiment.
        processes: runs the workers.
        weights: where actors get weights.
        origin: where the run starts.
        log: the driver's.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        processes: Processes,
        weights: RayWeightSource,
        origin: Origin,
        log: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._processes = processes
        self._access: ReplayAccess | None = None
        self._weights = weights
        self._log = log
        self._clock = clock
        self._first_writer_id = secrets.randbits(40) << 20
        self._rollouts = [
            _Rollout(
                index,
                Seat(f"rollout actor {index}", log.identity.of(Role.ACTOR, index), processes, log, clock),
                CutOff(config.replay.unreachable_seconds, clock),
                env_steps,
            )
            for index, env_steps in enumerate(origin.actor_env_steps)
        ]
        self._lost = 0
        self._shards_down: Collection[int] = ()
        self._notices: list[str] = []
        for rollout in self._rollouts:
            self._spawn(rollout)

    def start(self, access: ReplayAccess) -> None:
        """Have every actor that is there build its environments and connect to its shard."""
        self._access = access
        self._step_all()

    def wait_ready(self) -> None:
        """Wait until actors have built their environments; they begin to act with the next `collect`.

        All of them, or after `patience_seconds` those for which there was room, at least one.

        Raises:
            WorkerDied: none was ready in time, or all failed.
        """
        begin, seconds = self._clock(), self._processes.room_seconds
        while self._rollouts:
            waited = self._clock() - begin
            wanted = [r for r in self._rollouts if not r.quarantined]
            here = [r for r in wanted if r.stage is not _Stage.ARRIVING and not r.seat.vacant]
            ready = [r for r in here if r.stage is _Stage.READY]
            if ready == wanted or (ready == here != [] and waited > self._processes.patience_seconds):
                return
            if waited > seconds:
                raise WorkerDied(
                    f"no rollout actor was ready within {seconds:.0f} s; each needs a processor of the Ray cluster "
                    f"(log: {self._log})"
                )
            self._step_all()
            time.sleep(_POLL_SECONDS)

    def pending(self) -> list[Any]:
        """Calls in flight."""
        return [rollout.seat.call for rollout in self._rollouts if rollout.seat.call is not None]

    def collect(self, slice_seconds: float, newest_version: int) -> dict[int, ActorReport]:
        """Reports that have come in, by actor; everyone who answered is told to act for `slice_seconds` more.

        Args:
            slice_seconds: of acting, until the next report.
            newest_version: of the weights published so far.

        Raises:
            WorkerDied: every actor has failed too often.
            Unavailable: a shard has been out of an actor's reach for too long.
            ConfigError: what an actor raised that no other process would do better.
        """
        reports = {}
        for rollout in self._rollouts:
            answer = self._step(rollout)
            if isinstance(answer, Turn):
                self._note(rollout, answer)
                reports[rollout.index] = answer.report
            if rollout.stage is _Stage.READY or isinstance(answer, Turn):
                rollout.stage = _Stage.ACTING
                call = rollout.seat.handle.run.remote(slice_seconds, newest_version)
                rollout.seat.issue(call, self._config.actors.hang_seconds)
        return reports

    def moved(self, shards: Mapping[int, str]) -> None:
        """Shards came back at other addresses: tell everybody who has begun."""
        for rollout in self._rollouts:
            if not rollout.seat.vacant and rollout.stage is not _Stage.ARRIVING:
                rollout.seat.handle.moved.remote(shards)

    def wait_for(self, shards: Collection[int]) -> None:
        """These shards are being started again, however long that takes: actors of theirs do not count as cut off."""
        self._shards_down = shards

    def acknowledged(self, shard: int) -> int:
        """Records that this shard has acknowledged since the run began, as the actors last told."""
        ours = [rollout for rollout in self._rollouts if self._shard(rollout) == shard]
        return sum(rollout.acknowledged_before + rollout.stored for rollout in ours)

    def casualties(self) -> Casualties:
        """Restarts and losses so far."""
        return Casualties(
            restarts=sum(rollout.seat.restarts for rollout in self._rollouts),
            lost_transitions=self._lost + sum(rollout.given_up for rollout in self._rollouts),
            quarantined=sum(rollout.quarantined for rollout in self._rollouts),
        )

    def workers(self) -> tuple[WorkerState, ...]:
        """How every actor is."""
        return tuple(
            dataclasses.replace(state, stage="quarantined") if rollout.quarantined else state
            for rollout in self._rollouts
            for state in (rollout.seat.state(rollout.stage.value),)
        )

    def take_notices(self) -> tuple[str, ...]:
        """What a person should be told since the last call."""
        notices, self._notices = tuple(self._notices), []
        return notices

    def stop(self) -> None:
        """End every actor."""
        for rollout in self._rollouts:
            rollout.seat.stop()

    def _step_all(self) -> None:
        for rollout in self._rollouts:
            self._step(rollout)

    def _step(self, rollout: _Rollout) -> Any:
        """Take what an actor has answered and lead it to the next stage; its answer, or None."""
        seat = rollout.seat
        if rollout.quarantined or rollout.stage is _Stage.READY:
            return None
        if seat.vacant:
            if seat.due:
                self._spawn(rollout)
            return None
        try:
            if not seat.answered():
                return None
            answer = seat.answer()
        except ConfigError:
            raise
        except HeadraceError as error:
            self._replace(rollout, error)
            return None
        if rollout.stage is _Stage.ARRIVING:
            self._begin(rollout)
        elif rollout.stage is _Stage.BEGINNING:
            rollout.stage = _Stage.READY
        return answer

    def _spawn(self, rollout: _Rollout) -> None:
        rollout.stage = _Stage.ARRIVING
        rollout.seat.fill(RolloutWorker)
        rollout.seat.issue(rollout.seat.handle.arrive.remote(), None)

    def _begin(self, rollout: _Rollout) -> None:
        if self._access is None or self._shard(rollout) in self._shards_down:
            return  # asked again when the shards are there
        rollout.stage = _Stage.BEGINNING
        rollout.begun_at, rollout.turn = rollout.env_steps, None
        place = ActorPlace(rollout.index, self._first_writer_id + rollout.index, rollout.epoch, rollout.env_steps)
        access = self._access.of_actor(rollout.index)
        begin = rollout.seat.handle.begin.remote(self._config, place, access, self._weights)
        rollout.seat.issue(begin, max(self._config.actors.hang_seconds, _BEGIN_SECONDS))

    def _note(self, rollout: _Rollout, turn: Turn) -> None:
        rollout.env_steps, rollout.turn = turn.report.env_steps, turn
        if turn.report.blocked_on == "shard":
            self._missed(rollout)
        else:
            rollout.cut_off.reached()

    def _shard(self, rollout: _Rollout) -> int:
        assert self._access is not None
        return rollout.index % len(self._access.addresses)

    def _missed(self, rollout: _Rollout) -> None:
        assert self._access is not None
        if self._shard(rollout) in self._shards_down:
            rollout.cut_off.reached()
            return
        [address] = self._access.of_actor(rollout.index).addresses
        rollout.cut_off.missed(f"{rollout.seat.name} has not reached the replay shard at {address}")

    def _replace(self, rollout: _Rollout, error: HeadraceError) -> None:
        self._lost += max(rollout.env_steps - rollout.begun_at - rollout.stored, 0)
        rollout.acknowledged_before += rollout.stored
        rollout.turn, rollout.begun_at = None, rollout.env_steps
        rollout.epoch += 1
        if isinstance(error, Unavailable):
            self._missed(rollout)
        try:
            rollout.seat.vacate(error)
        except WorkerDied as last:
            rollout.quarantined = True
            if all(other.quarantined for other in self._rollouts):
                raise WorkerDied(f"no rollout actor is left: {last}") from error
            self._notices.append(f"quarantined: {last}; the run goes on with the others")
