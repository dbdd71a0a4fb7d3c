"""A rollout actor's loop: act, step, accumulate, write, refresh weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.accumulators import Accumulator
from actors.moments import Moments
from actors.normalisation import MomentTracker
from actors.seeds import generator
from actors.vector_steps import VectorSteps
from learners.policies import Policy
from learners.weights import WeightSource
from replay_server.errors import ReplayTimeout, StorageFull, Unavailable
from replay_server.replay import Writer

_LOOK_SECONDS = 0.005  # between two looks for weights while an actor may not act without them


@dataclass(frozen=True)
class ActorReport:
    """What an actor did since its last report.

    Attributes:
        env_steps: environment transitions over this actor's life.
        stored: records a shard has acknowledged over this actor's life.
        returns: raw undiscounted returns of the episodes that ended since the last report.
        lengths: their lengths, in steps.
        policy_version: version of the weights in use.
        seconds_blocked: time spent waiting for the replay or for weights since the last report.
        blocked_on: what the last turn waited for in vain, or None.
        moments: new observations' and returns' moments, to be merged over actors; empty when not asked for.
        overdue: transitions since the last report whose weights were further behind than they may be.
    """

    env_steps: int
    stored: int
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    policy_version: int
    seconds_blocked: float
    blocked_on: str | None
    moments: Mapping[str, Moments]
    overdue: int = 0


@dataclass(frozen=True)
class ActorPace:
    """How an actor keeps step with its run.

    Attributes:
        records_per_insert: records collected before they are given priorities and sent.
        most_per_insert: records sent at once at most: no more than a shard holds.
        total_actors: actors of the run; one actor's steps times it stand for the run's when schedules are read.
        max_weight_lag: versions its weights may be behind the newest that it knows to be published; None: any number.
        pause_on_lag: it does not act with weights further behind; else it does, and counts.
    """

    records_per_insert: int
    most_per_insert: int
    total_actors: int
    max_weight_lag: int | None = None
    pause_on_lag: bool = True


class ActorLoop:
    """One `step` is one turn: a vector step of B environments, or a wait that passed its deadline.

    It waits for the replay, and for weights when its own are too old (`ActorPace.max_weight_lag`). The latter can't
    stop a run: what an actor waits for has been published, so that it comes without anything that an actor inserts.

    Args:
        steps: the environments.
        policy: chooses actions.
        accumulator: turns steps into records.
        writer: takes records.
        weights: asked for newer weights before every vector step.
        moments: tracks observation and return moments, or None when neither is normalised.
        pace: how often it sends, and what its steps count for.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        steps: VectorSteps,
        policy: Policy,
        accumulator: Accumulator,
        writer: Writer,
        weights: WeightSource,
        moments: MomentTracker | None,
        pace: ActorPace,
        clock: Callable[[], float],
    ) -> None:
        self._steps = steps
        self._policy = policy
        self._accumulator = accumulator
        self._writer = writer
        self._weights = weights
        self._moments = moments
        self._pace = pace
        self._clock = clock
        self._env_steps = 0
        self._seconds_blocked = 0.0
        self._blocked_on: str | None = None
        self._newest_version = 0
        self._overdue = 0
        self._outbox: list[dict[str, NDArray[Any]]] = []
        self._finished: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []

    def begin(self, seed: int, env_steps: int) -> None:
        """Reset the environments and start acting.

        Args:
            seed: of the environments and of this actor's choices, from `seeds.derive`.
            env_steps: transitions this actor made before (a resumed run), for the schedules.
        """
        self._rng = generator(seed, "choices")
        self._observation = self._steps.reset(seed)
        self._accumulator.first(self._observation)
        if self._moments is not None:
            self._moments.first()
        self._env_steps = env_steps
        self._returns = np.zeros(self._steps.num_envs)
        self._lengths = np.zeros(self._steps.num_envs, dtype=np.int64)

    def end(self, timeout_s: float) -> bool:
        """Hand over what is still open, cut off as truncated; False when the replay did not take it in time."""
        self._keep(self._accumulator.flush_truncated())
        return self._send(timeout_s)

    def published(self, version: int) -> None:
        """So many versions of the weights have been published."""
        self._newest_version = version

    def step(self, timeout_s: float) -> bool:
        """One turn; False when the replay did not take the records within `timeout_s` seconds, or weights did not come.

        Records that were not taken are kept.
        """
        if self._waiting() >= self._pace.records_per_insert:
            return self._send(timeout_s)
        overdue = self._refresh_weights(timeout_s)
        if overdue and self._pace.pause_on_lag:
            self._blocked_on = "weights"
            return False
        action = self._policy.act(
            self._observation, self._rng, explore=True, env_steps=self._env_steps * self._pace.total_actors
        )
        timestep = self._steps.step(action.action)
        self._keep(self._accumulator.step(action, self._policy.version, timestep))
        self._observation = timestep.observation
        made = int(np.count_nonzero(timestep.valid))
        self._env_steps += made
        self._overdue += made if overdue else 0
        self._blocked_on = None
        if self._moments is not None:
            self._moments.observe(timestep)
        self._count_episodes(timestep.reward, timestep.valid, timestep.terminated | timestep.truncated)
        return self._waiting() < self._pace.records_per_insert or self._send(timeout_s)

    def close(self) -> None:
        """Close the environments."""
        self._steps.close()

    def report(self) -> ActorReport:
        """What happened since the last report."""
        returns = [r for r, _ in self._finished]
        lengths = [n for _, n in self._finished]
        report = ActorReport(
            env_steps=self._env_steps,
            stored=self._writer.acknowledged,
            returns=np.concatenate(returns) if returns else np.zeros(0),
            lengths=np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int64),
            policy_version=self._policy.version,
            seconds_blocked=self._seconds_blocked,
            blocked_on=self._blocked_on,
            moments={} if self._moments is None else self._moments.take_delta(),
            overdue=self._overdue,
        )
        self._overdue = 0
        self._finished.clear()
        self._seconds_blocked = 0.0
        return report

    def _refresh_weights(self, timeout_s: float) -> bool:
        """Load newer weights, if there are any; whether those in use are too old, for a pausing actor after a wait."""
        overdue = self._load_newer()
        if overdue and self._pace.pause_on_lag and timeout_s > 0.0:
            begin = self._clock()
            while overdue and self._clock() < begin + timeout_s:
                time.sleep(_LOOK_SECONDS)
                overdue = self._load_newer()
            self._seconds_blocked += self._clock() - begin
        return overdue

    def _load_newer(self) -> bool:
        """Whether the weights in use are too old, after newer ones were loaded if there are any."""
        if (snapshot := self._weights.latest(self._policy.version)) is not None:
            self._policy.load(snapshot)
        most = self._pace.max_weight_lag
        return most is not None and self._newest_version - self._policy.version > most

    def _keep(self, columns: dict[str, NDArray[Any]]) -> None:
        if len(columns["reward"]):
            self._outbox.append(columns)

    def _waiting(self) -> int:
        return sum(len(columns["reward"]) for columns in self._outbox)

    def _send(self, timeout_s: float) -> bool:
        if not self._waiting():
            return True
        records = {name: np.concatenate([columns[name] for columns in self._outbox]) for name in self._outbox[0]}
        self._outbox = [records]
        begin = self._clock()
        try:
            while self._waiting():
                self._send_some(timeout_s)
        except ReplayTimeout as timeout:
            self._blocked_on = timeout.blocked_on
            return False
        except StorageFull:  # goes on when there is space again
            self._blocked_on = "disk"
            return False
        except Unavailable:  # goes on when the shard is back; for how long to wait is the runtime's to say
            self._blocked_on = "shard"
            return False
        finally:
            if timeout_s > 0.0:  # else nothing is ever waited for: the time is the writing's own
                self._seconds_blocked += self._clock() - begin
        self._outbox = []
        self._blocked_on = None
        return True

    def _send_some(self, timeout_s: float) -> None:
        """Hand over what is waiting, or as much of it as may go at once."""
        records, most = self._outbox[0], self._pace.most_per_insert
        some = {name: column[:most] for name, column in records.items()}
        self._writer.append(some, self._policy.initial_priorities(some), timeout_s=timeout_s)
        self._outbox[0] = {name: column[most:] for name, column in records.items()}

    def _count_episodes(self, reward: NDArray[np.float32], valid: NDArray[np.bool_], ended: NDArray[np.bool_]) -> None:
        self._returns += np.where(valid, reward, 0.0)
        self._lengths += valid
        done = ended & valid
        if done.any():
            self._finished.append((self._returns[done], self._lengths[done]))
            self._returns[done] = 0.0
            self._lengths[done] = 0
