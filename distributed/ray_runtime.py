"""The system as processes under Ray."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml
from numpy.typing import NDArray

from actors.evaluator import EvaluationResult
from actors.seeds import derive
from distributed.build import make_spec, make_task, resolve_device, shard_capacity, shard_limiter, shard_sampling
from distributed.config import ExperimentConfig
from distributed.ray_evaluator import RayEvaluator
from distributed.ray_session import get, spawn, start_ray
from distributed.ray_weights import RayWeightSink, RayWeightSource, WeightStore
from distributed.ray_workers import LearnerWorker
from distributed.run_directory import RunDirectory
from distributed.runtime import Casualties, Evaluation, Origin, Progress, Saved
from distributed.shard_host import ShardHost
from distributed.supervisor import RolloutSupervisor
from learners.loop import LearnerReport
from learners.weights import WeightSnapshot
from replay_server import connect
from replay_server.errors import WorkerDied
from replay_server.replay import Replay, ReplayStats

_SLICE_SECONDS = 0.2
_START_SECONDS = 120.0  # Ray workers importing torch on a loaded machine
_HANG_SECONDS = 60.0
_SAVE_SECONDS = 600.0
_STOP_SECONDS = 3.0


class RayRuntime:
    """Rollout actors, learner, evaluator and weight store as Ray actors; shards as child processes of thin ones."""

    def __init__(self, config: ExperimentConfig, run: RunDirectory) -> None:
        self._config = config
        self._run = run
        self._task = make_task(config)
        self._spec = make_spec(config, self._task)
        self._hosts: list[Any] = []
        self._replay: Replay | None = None
        self._rollouts: RolloutSupervisor | None = None
        self._evaluator: RayEvaluator | None = None
        self._owns_ray = False
        self._workers: list[Any] = []

    def start(self, origin: Origin) -> None:
        """Start or join Ray, then everything of the run; returns when all are ready to work."""
        config = self._config
        self._owns_ray = start_ray(config)
        shards = [] if config.replay.addresses else self._start_shards(origin)
        store = self._worker(WeightStore, num_cpus=0)
        self._source = RayWeightSource(store)
        gpus = 1 if resolve_device(config.learner.device).startswith("cuda") else 0
        self._learner = self._worker(LearnerWorker, num_cpus=1, num_gpus=gpus)
        self._rollouts = RolloutSupervisor(config, self._source, origin, self._run.logs, time.monotonic)
        addresses = config.replay.addresses or tuple(
            get(call, _START_SECONDS, f"replay shard {index}") for index, call in enumerate(shards)
        )
        ready = self._learner.begin.remote(config, addresses, RayWeightSink(store), origin, self._run.logs)
        self._rollouts.start(addresses)
        self._replay = connect(addresses, spec=self._spec, prefetch=0)
        get(ready, _START_SECONDS, "the learner")
        self._rollouts.wait_ready(_START_SECONDS)
        self._evaluator = RayEvaluator(config, self._source, self._run.logs)
        self._learn_on()

    def advance(self) -> Progress:
        """Wait for the next report of anyone, and give everyone who reported more to do."""
        assert self._rollouts is not None
        pending = [self._learning, *self._rollouts.pending()]
        ray.wait(pending, timeout=_SLICE_SECONDS)
        return Progress(self._rollouts.collect(_SLICE_SECONDS), self._collect_learner())

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
        self._learner.set_moments.remote(dict(moments))

    def checkpoint(self, directory: Path, barriers: int) -> Saved:
        """The learner publishes and writes itself and the shards; actors go on."""
        earlier: LearnerReport = get(self._learning, _HANG_SECONDS, "the learner")
        call = self._learner.save.remote(directory, not self._config.replay.addresses)
        snapshot, report = get(call, _SAVE_SECONDS, "the learner")
        self._learn_on()
        return Saved(snapshot, Progress({}, (earlier, report)))

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Greedy episodes of one policy, by the evaluator."""
        assert self._evaluator is not None
        return self._evaluator.evaluate(snapshot, episodes, seed)

    def replay_stats(self) -> ReplayStats:
        """Counters of the replay."""
        assert self._replay is not None
        return self._replay.stats()

    def casualties(self) -> Casualties:
        """What the supervisor counted, and the evaluator's restarts."""
        assert self._rollouts is not None and self._evaluator is not None
        counted = self._rollouts.casualties()
        return Casualties(counted.restarts + self._evaluator.restarts, counted.lost_transitions)

    def stop(self) -> None:
        """End shards and actors, and Ray itself when this run started it."""
        if self._replay is not None:
            self._replay.close()
        stops = [host.stop.remote(_STOP_SECONDS) for host in self._hosts]
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=2 * _STOP_SECONDS)
        if self._rollouts is not None:
            self._rollouts.stop()
        if self._evaluator is not None:
            self._evaluator.stop()
        for worker in self._workers:
            ray.kill(worker)
        self._hosts, self._workers = [], []
        self._rollouts = self._evaluator = self._replay = None
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False

    def _worker(self, cls: type, **resources: float) -> Any:
        worker = spawn(cls, **resources)
        self._workers.append(worker)
        return worker

    def _start_shards(self, origin: Origin) -> list[Any]:
        """Begins with the slowest to start, so that the other processes start meanwhile; the answers are addresses."""
        calls = []
        for index in range(self._config.replay.shards):
            self._hosts.append(self._worker(ShardHost, num_cpus=0))
            config_file = self._run.logs / f"shard-{index}.yaml"
            config_file.write_text(yaml.safe_dump(self._shard_config(index, origin), sort_keys=False))
            calls.append(self._hosts[index].begin.remote(config_file, self._run.logs / f"shard-{index}.log"))
        return calls

    def _shard_config(self, index: int, origin: Origin) -> dict[str, Any]:
        config, limiter = self._config, shard_limiter(self._config, origin.log.records)
        restore = None if origin.checkpoint is None else str(origin.checkpoint / f"replay-{index}.h5")
        return {
            "address": "127.0.0.1:0",
            "spec": json.loads(self._spec.to_json()),
            "capacity": shard_capacity(config),
            **shard_sampling(config)._asdict(),
            "rate_limiter": dataclasses.asdict(limiter),
            "seed": derive(config.run.seed, "shard", index, origin.barriers),
            "shard_index": index,
            "directory": str(self._run.checkpoints),
            "restore_from": restore,
            "init_from": list(origin.log.files) if restore is None else [],
            "init_shards": config.replay.shards,
        }

    def _collect_learner(self) -> tuple[LearnerReport, ...]:
        if not ray.wait([self._learning], timeout=0)[0]:
            if time.monotonic() - self._learning_since > _HANG_SECONDS:
                raise WorkerDied(f"the learner did not report for {_HANG_SECONDS:.0f} s; continue with --resume")
            return ()
        report: LearnerReport = get(self._learning, _HANG_SECONDS, "the learner")
        self._learn_on()
        return (report,)

    def _learn_on(self) -> None:
        self._learning = self._learner.run.remote(_SLICE_SECONDS)
        self._learning_since = time.monotonic()
