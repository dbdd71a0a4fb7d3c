"""What runs inside Ray's processes: thin shells around the same objects the serial runtime uses.

Every worker is driven by short calls from the driver (`run(seconds)` works for so long and reports), so that between
two calls a worker can be told anything, and a call that does not come back in time means a worker that hangs. Workers
build their parts in `begin`, not in the constructor: Ray hands back errors of a method with their type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from numpy.typing import NDArray

from actors.evaluator import EvaluationResult, evaluate
from actors.loop import ActorReport
from actors.seeds import SeedFamily, derive
from distributed.build import make_actor_loop, make_learner, make_learner_loop, make_spec, make_task, resolve_device
from distributed.config import ExperimentConfig
from distributed.event_log import EventLog
from distributed.identity import Identity
from distributed.monitoring.exporter import served_at
from distributed.monitoring.worker_numbers import ActorNumbers, EvaluatorNumbers, LearnerNumbers
from distributed.ray_weights import FETCHED, PUBLISHER_OPTIONS, RayWeightSink, RayWeightSource
from distributed.replay_access import ReplayAccess
from learners.checkpoint import learner_arrays, restore_learner
from learners.loop import LearnerReport
from learners.replica_group import MeetingPlace, Membership, ReplicaGroup
from learners.replicas import ALONE, Replicas
from learners.weights import WeightSlot, WeightSnapshot
from replay_server.errors import CheckpointError, ReplayTimeout, Unavailable
from replay_server.reopening import ReopeningWriter

_TURN_SECONDS = 0.1  # longest wait of one turn; `run` overstays its time by this much at most


@dataclass(frozen=True)
class ActorPlace:
    """Which actor of the run a worker is, its writer's identity, and the transitions it made before."""

    index: int
    writer_id: int
    epoch: int
    env_steps: int


@dataclass(frozen=True)
class Turn:
    """What a rollout actor has done, and the records it could not hand over because its shard had forgotten it."""

    report: ActorReport
    given_up: int


class RolloutWorker:
    """One rollout actor."""

    def __init__(self, identity: Identity) -> None:
        self._log = EventLog(identity)
        self._log.start()
        self._numbers = ActorNumbers()
        self._metrics = served_at(identity, self._numbers)

    def metrics_address(self) -> str | None:
        """HOST:PORT where Prometheus finds it, or None."""
        return self._metrics

    def arrive(self) -> None:
        """Answers as soon as there was room for this process and it has started."""

    def begin(
        self, config: ExperimentConfig, place: ActorPlace, access: ReplayAccess, weights: RayWeightSource
    ) -> None:
        """Build everything, connect to this actor's shard and reset the environments."""
        torch.set_num_threads(1)
        task = make_task(config)
        self._access = access
        replay = access.connect(make_spec(config, task), transport=config.replay.transport)
        self._writer = ReopeningWriter(
            replay,
            writer_id=place.writer_id,
            epoch=place.epoch,
            max_in_flight=1,  # what waits here is data the learner has not seen
            gather_rows=config.actors.records_per_insert,
        )
        self._loop = make_actor_loop(config, task, place.index, self._writer, weights, time.monotonic)
        # The transitions made before tell restarts and resumed runs apart: no seed is used twice.
        seed = derive(config.run.seed, "actor", place.index, place.epoch, place.env_steps)
        self._loop.begin(seed, place.env_steps)
        self._log.info("ready", epoch=place.epoch, env_steps=place.env_steps, shard=access.addresses)

    def moved(self, shards: Mapping[int, str]) -> None:
        """Shards came back at other addresses."""
        self._access.moved(shards)

    def run(self, seconds: float, newest_version: int) -> Turn:
        """Act for a while; so many versions of the weights have been published, as far as the driver knows."""
        self._loop.published(newest_version)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._loop.step(_TURN_SECONDS)
        turn = Turn(self._loop.report(), self._writer.given_up)
        self._numbers.note(turn.report, turn.given_up)
        return turn


@dataclass(frozen=True)
class LearnerPlace:
    """Where a learner starts.

    Attributes:
        checkpoint: directory to continue from, or None; the learner's node need not see it.
        arrays: of the learner there.
        published: the policy to publish first, as it is; None: the learner's own.
        above: what the learner publishes has versions above this one.
        inserted_before: records the shards were given before the run.
        rank: which of the learner's processes it is; the first publishes and makes cuts.
        meet_seconds: how long the others may take to come.
    """

    checkpoint: Path | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    published: WeightSnapshot | None = None
    above: int = 0
    inserted_before: int = 0
    rank: int = 0
    meet_seconds: float = 0.0


@dataclass(frozen=True)
class LearnerCut:
    """The learner at the cut of a checkpoint.

    Attributes:
        report: what happened since its last one.
        error: why there is no cut, or None.
        snapshot: the policy it published.
        arrays: what `save_learner` writes.
    """

    report: LearnerReport
    error: str | None
    snapshot: WeightSnapshot | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class LearnerWorker:
    """The learner, or one of its processes: all of them get the same calls in the same order."""

    RAY_OPTIONS = PUBLISHER_OPTIONS

    def __init__(self, identity: Identity) -> None:
        self._log = EventLog(identity)
        self._log.start()
        self._numbers = LearnerNumbers()
        self._metrics = served_at(identity, self._numbers)

    def metrics_address(self) -> str | None:
        """HOST:PORT where Prometheus finds it, or None."""
        return self._metrics

    def open_meeting(self) -> str:
        """HOST:PORT where the learner's processes will find each other."""
        self._meeting = MeetingPlace(self._log.identity.host)
        return self._meeting.address

    def begin(
        self,
        config: ExperimentConfig,
        access: ReplayAccess,
        sink: RayWeightSink,
        place: LearnerPlace,
        logs: Path,
        meeting: str | None = None,
    ) -> None:
        """Build everything, continue from a checkpoint if there is one, and publish the first policy.

        Args:
            config: the experiment.
            access: to every shard.
            sink: where the first process publishes.
            place: where it starts.
            logs: directory for a batch that cannot be learnt from.
            meeting: as of `open_meeting`; None for the only process.
        """
        torch.set_num_threads(config.learner.threads)
        task = make_task(config)
        spec = make_spec(config, task)
        self._access, self._sink = access, sink
        self._replay = access.connect(spec, transport=config.replay.transport, prefetch=config.replay.prefetch)
        device = resolve_device(config.learner.device)
        self._learner = make_learner(config, task, spec, seed=derive(config.run.seed, "learner"), device=device)
        self._replicas: Replicas = ALONE
        if meeting is not None:
            self._replicas = ReplicaGroup(_membership(config, place, meeting, self._log.identity.host), device)
            self._learner.join(self._replicas)
        self._loop = make_learner_loop(
            config,
            self._learner,
            self._replay,
            sink if place.rank == 0 else WeightSlot(),
            time.monotonic,
            logs=logs,
            inserted_before=place.inserted_before,
            replicas=self._replicas,
        )
        if place.checkpoint is not None:
            restore_learner(self._learner, place.arrays, place.checkpoint)
        self._learner.skip_versions(place.above)
        self._loop.begin(place.published)
        self._log.info("ready", device=str(device), checkpoint=place.checkpoint, shards=access.addresses)

    def moved(self, shards: Mapping[int, str]) -> None:
        """Shards came back at other addresses."""
        self._access.moved(shards)

    def run(self, seconds: float) -> LearnerReport:
        """Learn for a while."""
        self._loop.work(seconds, _TURN_SECONDS)
        return self._report()

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new observation and return moments."""
        self._learner.set_moments(moments)

    def publish(self) -> None:
        """Publish the weights as they are now."""
        self._loop.publish()

    @ray.method(concurrency_group=FETCHED, num_returns=2)
    def fetch_weights(self) -> tuple[int, WeightSnapshot]:
        """What was published last, for the weight store; answered while all else goes on."""
        return self._sink.fetched()

    def cut(self, replay_directory: str | None) -> LearnerCut:
        """Come to rest, publish, copy the learner's state and have the shards make their cuts; all else comes later.

        Args:
            replay_directory: of the shards' snapshots, inside the directory they were started with; None for shards
                that run elsewhere and keep their own.
        """
        self._loop.drain()
        error = _failure(self._replay.flush)
        if not self._replicas.all(error is None):
            return LearnerCut(self._report(), error)
        snapshot, arrays = self._loop.publish(), learner_arrays(self._learner)
        self._replicas.check_same(arrays.values())
        if self._replicas.rank:
            return LearnerCut(self._report(), None)
        if replay_directory is not None:
            error = _failure(partial(self._replay.begin_save, replay_directory))
        return LearnerCut(self._report(), error, snapshot, arrays)

    def _report(self) -> LearnerReport:
        report = self._loop.report()
        self._numbers.note(report, (self._sink.published, self._sink.published_bytes, self._sink.seconds))
        return report


def _failure(call: Callable[[], Any]) -> str | None:
    """Why the shards' part of a cut could not be had, or None."""
    try:
        call()
    except (CheckpointError, ReplayTimeout, Unavailable) as error:
        return str(error)
    return None


def _membership(config: ExperimentConfig, place: LearnerPlace, meeting: str, host: str) -> Membership:
    return Membership(
        rank=place.rank,
        count=config.learner.processes,
        meeting=meeting,
        host=host,
        meet_seconds=place.meet_seconds,
        answer_seconds=config.learner.hang_seconds,
    )


class EvaluatorWorker:
    """Greedy episodes on published policies."""

    def __init__(self, identity: Identity) -> None:
        self._log = EventLog(identity)
        self._log.start()
        self._numbers = EvaluatorNumbers()
        self._metrics = served_at(identity, self._numbers)

    def metrics_address(self) -> str | None:
        """HOST:PORT where Prometheus finds it, or None."""
        return self._metrics

    def begin(self, config: ExperimentConfig, weights: RayWeightSource) -> None:
        """Build the policy."""
        torch.set_num_threads(1)
        self._config = config
        self._weights = weights
        self._policy = config.algorithm.make_policy(make_task(config), env_indices=range(1), total_envs=1)
        self._log.info("ready")

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Evaluate one policy."""
        begin = time.monotonic()
        self._policy.load(snapshot)
        result = evaluate(self._policy, self._config.environment, episodes, seed)
        self._numbers.note(snapshot.version, result, time.monotonic() - begin)
        return result

    def evaluate_newest(self) -> tuple[WeightSnapshot, EvaluationResult]:
        """Evaluate the newest published policy on the seeds that checkpoints are selected by."""
        snapshot = self._weights.newest()
        seed = derive(self._config.run.seed, family=SeedFamily.SELECTION)
        return snapshot, self.evaluate(snapshot, self._config.evaluation.episodes, seed)
