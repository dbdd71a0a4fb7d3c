"""Rollout actors and the evaluator inside Ray's processes: shells around the same objects the serial runtime uses.

Every worker is driven by short calls from the driver (`run(seconds)` works for so long and reports), so that between
two calls a worker can be told anything, and a call that does not come back in time means a worker that hangs. Workers
build their parts in `begin`, not in the constructor: Ray hands back errors of a method with their type.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from actors.evaluator import EvaluationResult, evaluate
from actors.loop import ActorReport
from actors.seeds import SeedFamily, derive
from distributed.build import make_actor_loop, make_spec, make_task
from distributed.config import ExperimentConfig
from distributed.event_log import EventLog
from distributed.identity import Identity
from distributed.monitoring.exporter import served_at
from distributed.monitoring.worker_numbers import ActorNumbers, EvaluatorNumbers
from distributed.ray_weights import RayWeightSource
from distributed.replay_access import ReplayAccess
from learners.weights import WeightSnapshot
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
