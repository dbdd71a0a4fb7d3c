"""The whole system in one thread, bit for bit repeatable, also across stop and resume."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from actors.evaluator import EvaluationResult, evaluate
from actors.loop import ActorLoop
from actors.seeds import SeedFamily, derive
from distributed.build import (
    make_actor_loop,
    make_learner,
    make_learner_loop,
    make_spec,
    make_task,
    shard_capacity,
    shard_limiter,
    shard_sampling,
)
from distributed.config import ExperimentConfig
from distributed.processes import Role
from distributed.runtime import Casualties, Cut, Evaluation, Origin, Progress
from distributed.worker_state import WorkerState
from learners.checkpoint import learner_arrays, read_learner, restore_learner, save_learner, write_json
from learners.weights import WeightSlot, WeightSnapshot
from replay_server.connecting import in_process
from replay_server.errors import CheckpointError
from replay_server.logged import read_records
from replay_server.replay import ReplayStats
from replay_server.shard import Shard
from replay_server.specs import RecordSpec
from replay_server.table import Table

_CLIENT_FILE = "replay_client.json"
_ROUNDS = 4  # turns of every actor in one `advance`
_UPDATES = 10  # updates in one `advance` without actors


class SerialRuntime:
    """Actors, shards, learner and evaluator as plain objects, in a fixed order, without waiting.

    Every checkpoint is a barrier in every run: open windows are flushed as truncated, weights are published, and the
    environments start again from a seed made of (actor, number of checkpoints). So a resumed run needs no state of
    any simulator, which some (Box2D) cannot give.
    """

    def __init__(self, config: ExperimentConfig, logs: Path | None = None) -> None:
        self._config = config
        self._task = make_task(config)
        self._slot = WeightSlot()
        self._logs = logs
        self._evaluations: list[Evaluation] = []
        self._actors: list[ActorLoop] = []
        self._cut: Cut | None = None

    def start(self, origin: Origin) -> None:
        """Build everything; torch runs on one thread from here on, so that sums are added in one order."""
        torch.set_num_threads(1)
        config = self._config
        spec = make_spec(config, self._task)
        shards = [self._make_shard(spec, index, origin) for index in range(config.replay.shards)]
        self._replay = in_process(shards, seed=derive(config.run.seed, "sampler"))
        self._learner = make_learner(config, self._task, spec, seed=derive(config.run.seed, "learner"), device="cpu")
        self._learner_loop = make_learner_loop(
            config, self._learner, self._replay, self._slot, time.monotonic, logs=self._logs
        )
        if origin.checkpoint is not None:
            restore_learner(self._learner, read_learner(origin.checkpoint), origin.checkpoint)
            self._replay.load_state_dict(_client_state(origin.checkpoint))
        self._learner_loop.begin(origin.snapshot)
        self._begin(list(origin.actor_env_steps), origin.barriers)

    def advance(self) -> Progress:
        """A few turns of every actor, the learner catching up after each."""
        if not self._actors:
            for _ in range(_UPDATES):
                self._learner_loop.step(0.0)
        for _ in range(_ROUNDS if self._actors else 0):
            for actor in self._actors:
                actor.published(self._learner_loop.version)
                actor.step(0.0)
            while self._learner_loop.step(0.0):
                pass
        return self._report()

    def request_evaluation(self, env_steps: int) -> None:
        """Evaluate at once; the result is there at the next `finished_evaluations`."""
        snapshot = self._slot.latest(0)
        assert snapshot is not None
        seed = derive(self._config.run.seed, family=SeedFamily.SELECTION)
        result = self.evaluate(snapshot, self._config.evaluation.episodes, seed)
        self._evaluations.append(Evaluation(env_steps, snapshot, result))

    def finished_evaluations(self) -> tuple[Evaluation, ...]:
        """Evaluations since the last call."""
        finished, self._evaluations = tuple(self._evaluations), []
        return finished

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Hand merged moments to the learner."""
        self._learner.set_moments(moments)

    def begin_checkpoint(self, directory: Path, barriers: int) -> None:
        """The barrier: flush, publish, write, and start the environments again."""
        for actor in self._actors:
            while not actor.end(0.0):
                self._learner_loop.step(0.0)
        self._learner_loop.drain()
        self._replay.flush()
        snapshot = self._learner_loop.publish()
        progress = self._report()
        save_learner(learner_arrays(self._learner), directory)
        self._replay.save(str(directory))
        write_json(directory / _CLIENT_FILE, self._replay.state_dict())
        self._begin([progress.actors[index].env_steps for index in range(len(self._actors))], barriers)
        self._cut = Cut(snapshot, progress)

    def cut(self) -> Cut | None:
        """What the barrier left."""
        cut, self._cut = self._cut, None
        return cut

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Greedy episodes of one policy."""
        policy = self._config.algorithm.make_policy(self._task, env_indices=range(1), total_envs=1)
        policy.load(snapshot)
        return evaluate(policy, self._config.environment, episodes, seed)

    def replay_stats(self) -> ReplayStats:
        """Counters of the replay."""
        return self._replay.stats()

    def casualties(self) -> Casualties:
        """Nothing dies alone in one thread."""
        return Casualties()

    def workers(self) -> tuple[WorkerState, ...]:
        """Everybody works in turn."""
        actors = tuple(WorkerState(Role.ACTOR, index, "acts") for index in range(len(self._actors)))
        shards = tuple(WorkerState(Role.SHARD, index, "serves") for index in range(self._config.replay.shards))
        return (*actors, WorkerState(Role.LEARNER, 0, "learns"), *shards)

    def stop(self) -> None:
        """Close the environments."""
        for actor in self._actors:
            actor.close()
        self._actors = []

    def _report(self) -> Progress:
        actors = {index: actor.report() for index, actor in enumerate(self._actors)}
        return Progress(actors, (self._learner_loop.report(),))

    def _make_shard(self, spec: RecordSpec, index: int, origin: Origin) -> Shard:
        config = self._config
        table = Table(
            spec,
            shard_capacity(config),
            **shard_sampling(config)._asdict(),
            seed=derive(config.run.seed, "shard", index),
            shard=index,
            incarnation=0,
        )
        shard = Shard(table, shard_limiter(config, origin.log.records))
        if origin.checkpoint is not None:
            shard.restore(str(origin.checkpoint / f"replay-{index}.h5"), keep_incarnation=True)
            return shard
        for records in read_records(origin.log.files, spec, part=index, parts=config.replay.shards):
            shard.preload(records)
        return shard

    def _begin(self, env_steps: list[int], barriers: int) -> None:
        """New actors, with all they know made of the seed and the number of checkpoints."""
        for actor in self._actors:
            actor.close()
        self._actors = [self._make_actor(index, barriers) for index in range(len(env_steps))]
        for index, (actor, steps) in enumerate(zip(self._actors, env_steps, strict=True)):
            actor.begin(derive(self._config.run.seed, "actor", index, barriers), steps)

    def _make_actor(self, index: int, barriers: int) -> ActorLoop:
        writer = self._replay.writer(writer_id=index, epoch=barriers, shard=index % self._config.replay.shards)
        return make_actor_loop(self._config, self._task, index, writer, self._slot, time.monotonic)


def _client_state(checkpoint: Path) -> Any:
    try:
        return json.loads((checkpoint / _CLIENT_FILE).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint / _CLIENT_FILE}: not readable; a checkpoint of runtime ray continues with --runtime ray"
        ) from error
