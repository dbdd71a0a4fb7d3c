"""The contract between the driver of a run and what carries it out: one thread, or processes under Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from actors.evaluator import EvaluationResult
from actors.loop import ActorReport
from distributed.logged_data import LoggedData
from distributed.worker_state import WorkerState
from learners.loop import LearnerReport
from learners.weights import WeightSnapshot
from replay_server.replay import ReplayStats


@dataclass(frozen=True)
class Origin:
    """Where a run starts: at nothing, or at a checkpoint.

    Attributes:
        checkpoint: directory to restore learner and replay from, or None.
        snapshot: the policy published last before the checkpoint, or None.
        actor_env_steps: transitions each actor made before.
        barriers: checkpoints made so far; environments are seeded by it.
        log: logged data the run began with; its files are to be read only where there is no checkpoint.
    """

    checkpoint: Path | None
    snapshot: WeightSnapshot | None
    actor_env_steps: tuple[int, ...]
    barriers: int
    log: LoggedData = field(default_factory=LoggedData)


@dataclass(frozen=True)
class Evaluation:
    """A finished periodic evaluation of one published policy."""

    env_steps: int
    snapshot: WeightSnapshot
    result: EvaluationResult


@dataclass(frozen=True)
class Progress:
    """What happened since the last one: actors' reports by index, the learner's in order, and news for people."""

    actors: Mapping[int, ActorReport]
    learner: tuple[LearnerReport, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cut:
    """The moment a checkpoint stands for.

    Attributes:
        snapshot: the policy published with it.
        progress: what happened while everything was brought to rest and `advance` has not told.
        write: waits until learner and replay are in their files, while training goes on; for any thread. Raises
            CheckpointError when they never will be. None where they are there already.
    """

    snapshot: WeightSnapshot
    progress: Progress
    write: Callable[[], None] | None = None


@dataclass(frozen=True)
class Casualties:
    """What went wrong and was put right.

    Attributes:
        restarts: processes of any kind that were replaced.
        lost_transitions: those that actors made and no shard had acknowledged when they died, and those that a shard
            had acknowledged and did not have any more after its restart.
        quarantined: rollout actors that failed too often and are not tried again.
    """

    restarts: int = 0
    lost_transitions: int = 0
    quarantined: int = 0

    def __add__(self, other: Casualties) -> Casualties:
        return Casualties(
            self.restarts + other.restarts,
            self.lost_transitions + other.lost_transitions,
            self.quarantined + other.quarantined,
        )


class Runtime(Protocol):
    """Carries a run out. The loop it lives in::

    runtime.start(origin)
    while not stop:
        progress = runtime.advance()
    runtime.stop()
    """

    def start(self, origin: Origin) -> None: ...

    def advance(self) -> Progress:
        """Work for a short while (well under a second) and report."""

    def request_evaluation(self, env_steps: int) -> None:
        """Evaluate the newest published policy; passed over while an earlier evaluation is still under way."""

    def finished_evaluations(self) -> tuple[Evaluation, ...]:
        """Requested evaluations that finished since the last call."""

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Hand the run's merged observation and return moments to the learner."""

    def begin_checkpoint(self, directory: Path, barriers: int) -> None:
        """Have learner and replay saved while `advance` goes on; not before the one before is complete or given up.

        Args:
            directory: an empty directory inside the run directory.
            barriers: checkpoints made so far, this one included.
        """

    def cut(self) -> Cut | None:
        """The cut of the checkpoint that was begun, once; None while it is not made.

        Raises:
            CheckpointError: there will be none; the run goes on.
        """

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Greedy episodes of one policy, waited for."""

    def replay_stats(self) -> ReplayStats: ...

    def casualties(self) -> Casualties: ...

    def workers(self) -> tuple[WorkerState, ...]:
        """How every process of the run is, as far as it has come."""

    def stop(self) -> None:
        """End everything the runtime started; safe to call twice."""
