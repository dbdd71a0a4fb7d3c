"""The system as processes under Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import ray
from numpy.typing import NDArray

from actors.evaluator import EvaluationResult
from distributed.build import make_spec, make_task
from distributed.config import ExperimentConfig
from distributed.event_log import EventLog
from distributed.learner_supervisor import LearnerSupervisor
from distributed.processes import Role
from distributed.ray_checkpoint import write_cut
from distributed.ray_evaluator import RayEvaluator
from distributed.ray_processes import RayProcesses
from distributed.ray_session import start_ray
from distributed.ray_weights import RayWeightSink, RayWeightSource, WeightStore
from distributed.replay_access import ReplayAccess
from distributed.rollout_supervisor import RolloutSupervisor
from distributed.run_directory import RunDirectory
from distributed.run_files import FileReader, RunFiles
from distributed.run_secrets import RunSecrets
from distributed.runtime import Casualties, Cut, Evaluation, Origin, Progress
from distributed.shard_plan import ShardPlan
from distributed.shard_supervisor import ShardSupervisor
from distributed.store_watch import StoreWatch
from distributed.worker_state import WorkerState
from learners.weights import WeightSnapshot
from replay_server.client import ReplayClient
from replay_server.replay import ReplayStats
from replay_server.security import TOKEN_VARIABLE

_SLICE_SECONDS = 0.2


class RayRuntime:
    """Rollout actors, learner, evaluator and weight store as Ray actors; shards as child processes of thin ones."""

    def __init__(self, config: ExperimentConfig, run: RunDirectory) -> None:
        self._config = config
        self._run = run
        self._task = make_task(config)
        self._spec = make_spec(config, self._task)
        self._replay: ReplayClient | None = None
        self._shards: ShardSupervisor | None = None
        self._rollouts: RolloutSupervisor | None = None
        self._learner: LearnerSupervisor | None = None
        self._evaluator: RayEvaluator | None = None
        self._store: Any = None
        self._store_watch: StoreWatch | None = None
        self._reader: Any = None
        self._owns_ray = False

    def start(self, origin: Origin) -> None:
        """Start or join Ray, then everything of the run; returns when all are ready to work."""
        config = self._config
        log = self._log = EventLog(self._run.identity(prometheus=config.run.prometheus, loopback=config.one_machine))
        self._owns_ray = start_ray(config)
        processes = self._processes = RayProcesses(config, private=config.one_machine)
        if not config.one_machine:
            self._reader = processes.spawn(FileReader, Role.DRIVER)
        files = RunFiles(self._reader)
        if not config.replay.addresses:  # begins with the slowest to start
            plan = ShardPlan(config, self._spec, self._run, origin, files)
            secrets = RunSecrets(os.environ.get(TOKEN_VARIABLE), tls=not config.one_machine)
            self._shards = ShardSupervisor(plan, processes, secrets, log, time.monotonic)
        self._store = processes.spawn(WeightStore, Role.STORE, log.identity.of(Role.STORE))
        source, sink = RayWeightSource(self._store), RayWeightSink(self._store)
        self._store_watch = StoreWatch(self._store, processes, self._start_store_again, time.monotonic)
        self._learner = LearnerSupervisor(config, processes, sink, origin, self._run, log, time.monotonic)
        self._rollouts = RolloutSupervisor(config, processes, source, origin, log, time.monotonic)
        if self._shards is None:
            access = ReplayAccess(dict(enumerate(config.replay.addresses)), None)
        else:
            access = self._shards.wait_ready()
        self._access, self._replay = access, access.connect(self._spec)
        others = 0
        if config.replay.addresses:  # shards that outlive runs: what they were given before this one
            others = max(self._replay.stats().inserted - sum(origin.actor_env_steps), 0)
        self._learner.start(access, others)
        self._rollouts.start(access)
        self._learner.wait_ready()
        self._rollouts.wait_ready()
        self._evaluator = RayEvaluator(config, processes, source, log, time.monotonic)
        self._learner.learn_on(_SLICE_SECONDS)

    def advance(self) -> Progress:
        """Wait for the next report of anyone, give everyone who reported more to do, and replace who has failed."""
        assert self._rollouts is not None and self._learner is not None
        pending = [*self._learner.pending(), *self._rollouts.pending()]
        if self._shards is not None:
            pending += self._shards.pending()
        if pending:
            self._processes.look(pending, _SLICE_SECONDS)
        else:
            time.sleep(_SLICE_SECONDS)
        notices: tuple[str, ...] = ()
        if self._shards is not None:
            self._shards.collect([self._rollouts.acknowledged(i) for i in range(self._config.replay.shards)])
            notices = self._shards.take_notices()
            down = self._shards.down()
            self._rollouts.wait_for(down)
            self._learner.wait_for(down)
            if moved := self._shards.take_moved():
                self._log.warning("shards moved", addresses=moved)
                for part in (self._access, self._rollouts, self._learner):
                    part.moved(moved)
        if self._store_watch is not None and self._store_watch.found_empty():
            self._learner.publish_again()
        learner = self._learner.collect()
        actors = self._rollouts.collect(_SLICE_SECONDS, self._learner.version)
        return Progress(actors, learner, notices + self._rollouts.take_notices() + self._learner.take_notices())

    def request_evaluation(self, env_steps: int) -> None:
        """Start an evaluation of the newest policy, unless one is under way."""
        assert self._evaluator is not None
        self._evaluator.request(env_steps)

    def finished_evaluations(self) -> tuple[Evaluation, ...]:
        """The evaluation that finished since the last call, if one did."""
        assert self._evaluator is not None
        return self._evaluator.finished()

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Hand merged moments to the learner."""
        assert self._learner is not None
        self._learner.set_moments(moments)

    def begin_checkpoint(self, directory: Path, barriers: int) -> None:
        """The learner makes the cut between two slices of its work, or when it is back; actors go on."""
        assert self._learner is not None
        self._saving_to = directory
        self._learner.request_cut(None if self._config.replay.addresses else directory.name)

    def cut(self) -> Cut | None:
        """What the learner was at the cut; the shards go on writing what they were."""
        assert self._learner is not None
        cut = self._learner.take_cut()
        if cut is None or cut.snapshot is None:
            return None
        replay = None if self._config.replay.addresses else self._replay
        return Cut(cut.snapshot, Progress({}, ()), partial(write_cut, self._saving_to, cut.arrays, replay))

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Greedy episodes of one policy, by the evaluator."""
        assert self._evaluator is not None
        return self._evaluator.evaluate(snapshot, episodes, seed)

    def replay_stats(self) -> ReplayStats:
        """Counters of the replay."""
        assert self._replay is not None
        return self._replay.stats()

    def casualties(self) -> Casualties:
        """What the supervisors counted."""
        watched = (self._shards, self._rollouts, self._learner, self._evaluator, self._store_watch)
        return sum((part.casualties() for part in watched if part is not None), Casualties())

    def workers(self) -> tuple[WorkerState, ...]:
        """How every process of the run is, as its supervisor sees it."""
        watched = (self._rollouts, self._learner, self._shards, self._evaluator, self._store_watch)
        return tuple(state for part in watched if part is not None for state in part.workers())

    def _start_store_again(self) -> None:
        self._log.warning("hangs", of=Role.STORE.value)
        self._processes.start_again(self._store)

    def stop(self) -> None:
        """End shards and actors, and Ray itself when this run started it."""
        with ExitStack() as stack:  # what one can't do keeps none of the others; last in, first out
            if self._owns_ray:
                stack.callback(ray.shutdown)
            for worker in (self._reader, self._store):
                if worker is not None:
                    stack.callback(self._processes.kill, worker)
            for part in (self._shards, self._evaluator, self._learner, self._rollouts):
                if part is not None:
                    stack.callback(part.stop)
            if self._replay is not None:
                stack.callback(self._access.close)
                stack.callback(self._replay.close)
        self._replay = self._shards = self._rollouts = self._learner = self._evaluator = None
        self._store = self._reader = None
        self._owns_ray = False
