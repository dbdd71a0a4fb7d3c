"""What runs inside Ray's processes: thin shells around the same objects the serial runtime uses.

Every worker is driven by short calls from the driver (`run(seconds)` works for so long and reports), so that between
two calls a worker can be told anything, and a call that does not come back in time means a worker that hangs. Workers
build their parts in `begin`, not in the constructor: Ray hands back errors of a method with their type.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from distributed.ray_weights import FETCHED, PUBLISHER_OPTIONS, RayWeightSink, RayWeightSource
from distributed.replay_access import ReplayAccess
from learners.checkpoint import learner_arrays, restore_learner
from learners.loop import LearnerReport
from learners.weights import WeightSnapshot
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
        self._log.info("start", host=socket.gethostname())

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
        return Turn(self._loop.report(), self._writer.given_up)


@dataclass(frozen=True)
class LearnerPlace:
    """Where a learner starts.

    Attributes:
        checkpoint: directory to continue from, or None; the learner's node need not see it.
        arrays: of the learner there.
        published: the policy to publish first, as it is; None: the learner's own.
        above: what the learner publishes has versions above this one.
        inserted_before: records the shards were given before the run.
    """

    checkpoint: Path | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    published: WeightSnapshot | None = None
    above: int = 0
    inserted_before: int = 0


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
    """The learner."""

    RAY_OPTIONS = PUBLISHER_OPTIONS

    def __init__(self, identity: Identity) -> None:
        self._log = EventLog(identity)
        self._log.info("start", host=socket.gethostname())

    def begin(
        self,
        config: ExperimentConfig,
        access: ReplayAccess,
        sink: RayWeightSink,
        place: LearnerPlace,
        logs: Path,
    ) -> None:
        """Build everything, continue from a checkpoint if there is one, and publish the first policy."""
        torch.set_num_threads(config.learner.threads)
        task = make_task(config)
        spec = make_spec(config, task)
        self._access, self._sink = access, sink
        self._replay = access.connect(spec, transport=config.replay.transport, prefetch=config.replay.prefetch)
        device = resolve_device(config.learner.device)
        self._learner = make_learner(config, task, spec, seed=derive(config.run.seed, "learner"), device=device)
        self._loop = make_learner_loop(
            config,
            self._learner,
            self._replay,
            sink,
            time.monotonic,
            logs=logs,
            inserted_before=place.inserted_before,
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
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._loop.step(_TURN_SECONDS)
        return self._loop.report()

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
        try:
            self._replay.flush()
            snapshot, arrays = self._loop.publish(), learner_arrays(self._learner)
            if replay_directory is not None:
                self._replay.begin_save(replay_directory)
        except (CheckpointError, ReplayTimeout, Unavailable) as error:
            return LearnerCut(self._loop.report(), str(error))
        return LearnerCut(self._loop.report(), None, snapshot, arrays)


class EvaluatorWorker:
    """Greedy episodes on published policies."""

    def __init__(self, identity: Identity) -> None:
        self._log = EventLog(identity)
        self._log.info("start", host=socket.gethostname())

    def begin(self, config: ExperimentConfig, weights: RayWeightSource) -> None:
        """Build the policy."""
        torch.set_num_threads(1)
        self._config = config
        self._weights = weights
        self._policy = config.algorithm.make_policy(make_task(config), env_indices=range(1), total_envs=1)
        self._log.info("ready")

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Evaluate one policy."""
        self._policy.load(snapshot)
        return evaluate(self._policy, self._config.environment, episodes, seed)

    def evaluate_newest(self) -> tuple[WeightSnapshot, EvaluationResult]:
        """Evaluate the newest published policy on the seeds that checkpoints are selected by."""
        snapshot = self._weights.newest()
        seed = derive(self._config.run.seed, family=SeedFamily.SELECTION)
        return snapshot, self.evaluate(snapshot, self._config.evaluation.episodes, seed)
