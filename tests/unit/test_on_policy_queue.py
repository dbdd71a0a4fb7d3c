"""Runs on a queue: every record learnt from once, in order, also over shards, a stop and a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from actors.environments import EnvironmentConfig
from distributed.build import make_spec, make_task, shard_limiter, shard_sampling
from distributed.config import ActorsConfig, ExperimentConfig, LearnerConfig, ReplayConfig, RunConfig
from distributed.run_directory import RunDirectory
from distributed.runtime import Origin
from distributed.serial_runtime import SerialRuntime
from distributed.shard_plan import ShardPlan
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.reinforce import ReinforceConfig
from learners.learner import StepOutput
from learners.weights import WeightSnapshot
from replay_server.batches import SampleBatch
from replay_server.importance import importance_weights
from replay_server.rate_limiter import RateLimiter

DQN = DQNConfig(target_update_tau=0.05, hidden_sizes=(4,), batch_size=32)
REINFORCE = ReinforceConfig(hidden_sizes=(4,), batch_size=32, correction="behaviour_head", value_minibatch_size=10)
"""Its whole episodes are longer than a queue of 48 records once it has learnt a little."""


def experiment(algorithm: Any = DQN, **replay: Any) -> ExperimentConfig:
    settings = {"sampler": "queue", "priority_exponent": 0.0, "min_size": 1, "capacity": 48, **replay}
    return ExperimentConfig(
        runtime="serial",
        environment=EnvironmentConfig(id="CartPole-v1", num_envs=3),
        algorithm=algorithm,
        replay=ReplayConfig(**settings),
        actors=ActorsConfig(count=2, records_per_insert=10),
        learner=LearnerConfig(samples_per_insert=1.0),
        run=RunConfig(seed=1),
    )


class Noting:
    """A learner that notes every record it is given."""

    def __init__(self, algorithm: Any) -> None:
        self.algorithm = algorithm
        self.updates = self.skipped_updates = 0
        self.seen: list[bytes] = []

    def step(self, batch: SampleBatch) -> StepOutput:
        self.updates += 1
        assert batch.consumed and importance_weights(batch, 1.0).tolist() == [1.0] * len(batch)
        self.seen += [row.tobytes() for row in batch.records]
        return StepOutput(batch.keys.copy(), np.ones(len(batch)))

    def snapshot(self) -> WeightSnapshot:
        network = self.algorithm.make_network(SerialRuntime(experiment())._task, torch.Generator().manual_seed(0))
        arrays = network.state_dict()
        return WeightSnapshot.of(self.updates + 1, {name: value.numpy() for name, value in arrays.items()})

    def drain(self) -> None: ...

    def take_metrics(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("algorithm", [DQN, REINFORCE], ids=lambda config: config.type)
def test_every_record_is_learnt_from_once(algorithm: Any, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    noting, written = Noting(algorithm), []
    monkeypatch.setattr("distributed.serial_runtime.make_learner", lambda *_, **__: noting)
    runtime = SerialRuntime(experiment(algorithm, shards=shards))
    runtime.start(Origin(None, None, (0, 0), 0))
    for actor in runtime._actors:
        append = actor._writer.append

        def noted(rows: Any, priorities: Any = None, *, timeout_s: float, append: Any = append) -> None:
            append(rows, priorities, timeout_s=timeout_s)
            written.extend(row.tobytes() for row in runtime._replay.spec.pack(rows))

        monkeypatch.setattr(actor._writer, "append", noted)
    for _ in range(60):
        runtime.advance()
        stats = runtime.replay_stats()
        assert stats.size <= 48
    assert noting.updates > 20
    assert len(set(written)) == len(written)
    learnt, waiting = noting.seen, len(written) - len(noting.seen)
    assert len(set(learnt)) == len(learnt) and set(learnt) <= set(written)
    assert 0 <= waiting < 48 + 32
    if shards == 1:
        assert learnt == written[: len(learnt)]
    assert runtime._replay.flush().stale == 0  # priorities of records that are gone are not even sent
    runtime.stop()


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("algorithm", [DQN, REINFORCE], ids=lambda config: config.type)
def test_a_queue_continues_where_it_was(tmp_path: Path, algorithm: Any, shards: int) -> None:
    """Rows that were drawn and not learnt from yet travel with the checkpoint."""
    config = experiment(algorithm, shards=shards)
    first = SerialRuntime(config)
    first.start(Origin(None, None, (0, 0), 0))
    for _ in range(10):  # by now rows are drawn that no update has taken yet
        first.advance()
    (tmp_path / "c").mkdir()
    first.begin_checkpoint(tmp_path / "c", 1)
    saved = first.cut()
    assert saved is not None
    steps = tuple(saved.progress.actors[index].env_steps for index in range(2))
    assert json.loads((tmp_path / "c" / "replay_client.json").read_text())["consumption"]
    second = SerialRuntime(config)
    second.start(Origin(tmp_path / "c", saved.snapshot, steps, 1))
    for runtime in (first, second):
        for _ in range(7):
            runtime.advance()
    states = first._learner.state_dict(), second._learner.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert first.replay_stats().inserted == second.replay_stats().inserted
    for runtime in (first, second):
        runtime.stop()


def test_what_the_shards_of_a_run_are_made_with() -> None:
    queue = experiment()
    assert shard_limiter(queue) == RateLimiter.queue(48)
    assert shard_sampling(queue) == ("fifo", 0.0, 1)
    uniform = msgspec.structs.replace(queue, replay=ReplayConfig(sampler="uniform", priority_exponent=0.0))
    assert shard_sampling(uniform) == ("uniform", 0.0, None)
    prioritized = msgspec.structs.replace(queue, replay=ReplayConfig())
    assert shard_sampling(prioritized) == ("stratified", 0.6, None)


@pytest.mark.parametrize("sampler", ["queue", "uniform", "prioritized"])
def test_shards_behind_ray_get_the_same(tmp_path: Path, sampler: Any) -> None:
    config = experiment(sampler=sampler)
    run = RunDirectory.create(tmp_path / "run", "")
    plan = ShardPlan(config, make_spec(config, make_task(config)), run, Origin(None, None, (), 0))
    shard = plan.shard(1, "127.0.0.1:0")
    assert (shard.sampler, shard.priority_exponent, shard.max_times_sampled) == shard_sampling(config)
    assert shard.rate_limiter.to_limiter() == shard_limiter(config)


def test_contradictions_are_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match=r"priority_exponent \(0.6\) .* sampler uniform"):
        ReplayConfig(sampler="uniform")
    with pytest.raises(ValueError, match=r"min_size \(1000\) .* sampler queue"):
        ReplayConfig(sampler="queue", priority_exponent=0.0)
    with pytest.raises(ValueError, match=r"sampler \(queue\) .* addresses"):
        ReplayConfig(sampler="queue", priority_exponent=0.0, min_size=1, addresses=("a:1",))
    with pytest.raises(ValueError, match=r"learner.samples_per_insert \(8.0\) .* replay.sampler queue"):
        msgspec.structs.replace(experiment(), learner=LearnerConfig())


@pytest.mark.parametrize("sampler", ["uniform", "prioritized"])
def test_reinforce_without_a_correction_is_refused_where_old_records_come_again(sampler: Any) -> None:
    plain = msgspec.structs.replace(REINFORCE, correction="none")
    assert experiment(plain).algorithm is plain
    other = ReplayConfig(sampler=sampler, priority_exponent=0.6 if sampler == "prioritized" else 0.0)
    with pytest.raises(ValueError, match=rf"algorithm\.correction none .* replay\.sampler \({sampler}\) to queue"):
        msgspec.structs.replace(experiment(plain), replay=other)
    for correction in ("stored", "behaviour_head"):
        corrected = msgspec.structs.replace(REINFORCE, correction=correction)
        assert msgspec.structs.replace(experiment(corrected), replay=other).replay is other
    elsewhere = ReplayConfig(addresses=("a:1",))  # whose shards may well be queues
    assert msgspec.structs.replace(experiment(plain), runtime="ray", replay=elsewhere).replay is elsewhere
