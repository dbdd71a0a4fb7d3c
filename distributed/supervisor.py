"""Keeps the rollout actors going: collects their reports, replaces those that die, hang or fail."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.loop import ActorReport
from distributed.config import ExperimentConfig
from distributed.ray_session import get, spawn
from distributed.ray_weights import RayWeightSource
from distributed.ray_workers import ActorPlace, RolloutWorker
from distributed.runtime import Casualties, Origin
from replay_server.errors import ConfigError, HeadraceError, Unavailable, WorkerDied

_HANG_SECONDS = 60.0
_HEALTHY_SECONDS = 30.0
_BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0)  # before the 1st, 2nd, ... restart of an actor that never worked for long


@dataclass
class _Rollout:
    """One rollout actor's place in the run, whichever process holds it."""

    index: int
    env_steps: int
    epoch: int = 0
    begun_at: int = 0  # env_steps when this process started
    stored: int = 0  # records of this process that a shard has acknowledged
    handle: Any = None
    call: Any = None
    issued: float = 0.0
    spawned: float = 0.0
    failures: int = 0  # since it last worked for a while
    restart_at: float | None = None


class RolloutSupervisor:
    """Rollout actors with one call in flight each.

    An actor that dies, hangs or raises is replaced by a new process with the next writer epoch: at once the first
    time, after growing pauses when it fails again before it has worked for a while; then the run gives up.

    Writer ids begin at a number of the run's own start, so that shards which serve one run after another never take
    the records of the second for repeats of the first.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        weights: RayWeightSource,
        origin: Origin,
        logs: Path,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._addresses: tuple[str, ...] = ()
        self._weights = weights
        self._log_file = logs / "rollout_failures.log"
        self._clock = clock
        self._first_writer_id = secrets.randbits(40) << 20
        self._rollouts = [_Rollout(index, env_steps) for index, env_steps in enumerate(origin.actor_env_steps)]
        self._restarts = 0
        self._lost = 0
        for rollout in self._rollouts:
            self._spawn(rollout)

    def start(self, addresses: tuple[str, ...]) -> None:
        """Have every actor build its environments and connect to the shards."""
        self._addresses = addresses
        for rollout in self._rollouts:
            self._begin(rollout)

    def wait_ready(self, seconds: float) -> None:
        """Wait until every actor has built its environments; they begin to act with the next `collect`."""
        for rollout in self._rollouts:
            get(rollout.call, seconds, f"rollout actor {rollout.index}")

    def pending(self) -> list[Any]:
        """Calls in flight."""
        return [rollout.call for rollout in self._rollouts if rollout.call is not None]

    def collect(self, slice_seconds: float) -> dict[int, ActorReport]:
        """Reports that have come in, by actor; everyone who answered is told to act for `slice_seconds` more."""
        reports = {}
        for rollout in self._rollouts:
            if rollout.restart_at is not None:
                if self._clock() >= rollout.restart_at:
                    self._spawn(rollout)
                    self._begin(rollout)
                continue
            if not ray.wait([rollout.call], timeout=0)[0]:
                if self._clock() - rollout.issued > _HANG_SECONDS:
                    self._replace(rollout, WorkerDied(f"rollout actor {rollout.index} hangs"))
                continue
            try:
                report: ActorReport | None = get(rollout.call, _HANG_SECONDS, f"rollout actor {rollout.index}")
            except (ConfigError, Unavailable):
                raise
            except HeadraceError as error:
                self._replace(rollout, error)
                continue
            if report is not None:
                rollout.env_steps, rollout.stored = report.env_steps, report.stored
                if self._clock() - rollout.spawned > _HEALTHY_SECONDS:
                    rollout.failures = 0
                reports[rollout.index] = report
            self._issue(rollout, rollout.handle.run.remote(slice_seconds))
        return reports

    def casualties(self) -> Casualties:
        """Restarts and losses so far."""
        return Casualties(self._restarts, self._lost)

    def stop(self) -> None:
        """End every actor."""
        for rollout in self._rollouts:
            if rollout.handle is not None:
                ray.kill(rollout.handle)

    def _spawn(self, rollout: _Rollout) -> None:
        rollout.restart_at = None
        rollout.spawned = self._clock()
        rollout.handle = spawn(RolloutWorker, num_cpus=1)

    def _begin(self, rollout: _Rollout) -> None:
        rollout.begun_at, rollout.stored = rollout.env_steps, 0
        place = ActorPlace(rollout.index, self._first_writer_id + rollout.index, rollout.epoch, rollout.env_steps)
        begin = rollout.handle.begin.remote(self._config, place, self._addresses, self._weights)
        self._issue(rollout, begin)

    def _issue(self, rollout: _Rollout, call: Any) -> None:
        rollout.call = call
        rollout.issued = self._clock()

    def _replace(self, rollout: _Rollout, error: HeadraceError) -> None:
        with self._log_file.open("a") as log:
            log.write(f"rollout actor {rollout.index}, epoch {rollout.epoch}:\n")
            log.writelines(traceback.format_exception(error))
        if rollout.failures >= len(_BACKOFF_SECONDS):
            raise WorkerDied(
                f"rollout actor {rollout.index} failed {rollout.failures + 1} times in a row, last with: {error} "
                f"(log: {self._log_file})"
            ) from error
        ray.kill(rollout.handle)
        self._restarts += 1
        self._lost += max(rollout.env_steps - rollout.begun_at - rollout.stored, 0)
        rollout.restart_at = self._clock() + _BACKOFF_SECONDS[rollout.failures]
        rollout.failures += 1
        rollout.epoch += 1
        rollout.call = None
