"""From a config to objects: tasks, specs, learners, actor loops. The only place that knows which goes with which."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import torch
from gymnasium import spaces

from actors.accumulators import Accumulator, NStepAccumulator
from actors.environments import describe, make_vector_env
from actors.episodes import EpisodeAccumulator
from actors.first_step import FirstStep
from actors.layouts import observation_layout, observation_parts
from actors.loop import ActorLoop, ActorPace
from actors.normalisation import MomentTracker
from actors.vector_steps import VectorSteps
from distributed.config import ExperimentConfig
from learners.algorithm import Algorithm
from learners.learner import Learner
from learners.loop import LearnerLoop, LearnerPace
from learners.replicas import ALONE, Replicas
from learners.task import ContinuousActions, DiscreteActions, Part, SlateActions, Task
from learners.weights import WeightSink, WeightSource
from replay_server.errors import ConfigError
from replay_server.rate_limiter import RateLimiter
from replay_server.replay import Replay, Writer
from replay_server.specs import RecordSpec
from replay_server.transitions import transition_spec


def make_task(config: ExperimentConfig) -> Task:
    """What the learner has to know of the environment.

    Raises:
        ConfigError: the environment is unknown, or its spaces are neither arrays of numbers nor Dicts of them.
    """
    described = describe(config.environment)
    dtype, shape = observation_layout(described.observation_space)
    return Task(
        observation_dtype=dtype,
        observation_shape=shape,
        actions=_actions(config, described.action_space),
        parts=tuple(Part(**asdict(part)) for part in observation_parts(described.observation_space)),
        item_embeddings=described.item_embeddings,
        normalise_observations=config.environment.normalise_observations,
        normalise_rewards=config.environment.normalise_rewards,
    )


def _actions(
    config: ExperimentConfig, space: gymnasium.Space[Any]
) -> DiscreteActions | ContinuousActions | SlateActions:
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return DiscreteActions(int(space.n))
    if isinstance(space, spaces.Box) and space.dtype.kind == "f" and len(space.shape) == 1 and space.is_bounded():
        return ContinuousActions(tuple(map(float, space.low)), tuple(map(float, space.high)))
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1 and len(set(space.nvec.tolist())) == 1:
        return SlateActions(int(space.nvec[0]), len(space.nvec))
    raise ConfigError(
        f"environment.id: {config.environment.id} has the action space {space}; Discrete from 0, a bounded vector Box "
        "of floats and MultiDiscrete of equal sizes are known; put a wrapper into environment.wrappers"
    )


def make_spec(config: ExperimentConfig, task: Task) -> RecordSpec:
    """The record layout of the run, and what its numbers mean."""
    algorithm: Algorithm = config.algorithm
    semantics = {
        "environment": config.environment.id,
        "gamma": repr(algorithm.gamma),
        "n_step": str(algorithm.n_step),
        "reward_scale": repr(algorithm.reward_scale),
    }
    if algorithm.discount_hours is not None:
        semantics["discount_hours"] = repr(algorithm.discount_hours)
    observation = (task.observation_dtype, task.observation_shape)
    return transition_spec(observation, _action_layout(task), semantics, algorithm.record_fields(task))


def _action_layout(task: Task) -> tuple[str, tuple[int, ...]]:
    match task.actions:
        case DiscreteActions():
            return "int64", ()
        case ContinuousActions():
            return "float32", (task.actions.size,)
        case SlateActions():
            return "int64", (task.actions.slots,)


class ShardSampling(NamedTuple):
    """Settings of a table, named as the table names them."""

    sampler: str
    priority_exponent: float
    max_times_sampled: int | None


def shard_capacity(config: ExperimentConfig) -> int:
    """Records one shard holds."""
    return math.ceil(config.replay.capacity / config.replay.shards)


def shard_limiter(config: ExperimentConfig, logged_records: int = 0) -> RateLimiter:
    """The rate limiter of one shard: a queue as long as the shard, or the run's law divided by the number of shards.

    Without actors there is no law. Records of a log are there before it begins to count, so that so many fewer have to
    be waited for.

    The buffer of the law holds two rounds of everything that moves at once, so that neither side stops the other for a
    moment's unevenness: the batches the learner asks for ahead, and a chunk from every actor.
    """
    if config.replay.sampler == "queue":
        return RateLimiter.queue(shard_capacity(config))
    if config.actors.count == 0:
        return RateLimiter()
    ratio = config.learner.samples_per_insert
    chunk = max(config.actors.records_per_insert, config.environment.num_envs * (config.algorithm.n_step or 1))
    batches = config.algorithm.batch_size * max(config.replay.prefetch, 1)
    return RateLimiter(
        min_size=math.ceil(max(config.replay.min_size - logged_records, 1) / config.replay.shards),
        samples_per_insert=ratio,
        error_buffer=2.0 * (batches + ratio * chunk * config.actors.count),
    )


def shard_sampling(config: ExperimentConfig) -> ShardSampling:
    """How the tables of the run's shards are drawn from."""
    match config.replay.sampler:
        case "queue":
            return ShardSampling("fifo", 0.0, 1)
        case "uniform":
            return ShardSampling("uniform", 0.0, None)
        case _:
            return ShardSampling("stratified", config.replay.priority_exponent, None)


def make_learner(config: ExperimentConfig, task: Task, spec: RecordSpec, *, seed: int, device: str) -> Learner:
    """The learner of `config.algorithm`."""
    algorithm: Algorithm = config.algorithm
    return algorithm.make_learner(task, spec, seed=seed, device=device)


def make_learner_loop(
    config: ExperimentConfig,
    learner: Learner,
    replay: Replay,
    sink: WeightSink,
    clock: Callable[[], float],
    *,
    logs: Path | None,
    inserted_before: int = 0,
    replicas: Replicas = ALONE,
) -> LearnerLoop:
    """The learner with its replay and its weight sink; `logs` is where a batch that it can't learn from is kept."""
    pace = LearnerPace(
        batch_size=config.algorithm.batch_size // replicas.count,
        publish_every_updates=config.learner.publish_every_updates,
        updates_per_batch=config.learner.updates_per_batch,
        inserted_before=inserted_before,
        offline=config.actors.count == 0,
    )
    return LearnerLoop(learner, replay, sink, pace=pace, clock=clock, logs=logs, replicas=replicas)


def make_actor_loop(
    config: ExperimentConfig,
    task: Task,
    index: int,
    writer: Writer,
    weights: WeightSource,
    clock: Callable[[], float],
) -> ActorLoop:
    """Actor `index` of the run, with its share of the run's environments."""
    environment, algorithm, count = config.environment, config.algorithm, config.actors.count
    steps = VectorSteps(make_vector_env(environment, environment.num_envs))
    return ActorLoop(
        steps=steps,
        policy=algorithm.make_policy(
            task,
            # Interleaved, so that every actor explores over the whole range.
            env_indices=range(index, environment.num_envs * count, count),
            total_envs=environment.num_envs * count,
        ),
        accumulator=make_accumulator(environment.num_envs, algorithm, task),
        writer=writer,
        weights=weights,
        moments=_moment_tracker(config, task),
        pace=ActorPace(
            config.actors.records_per_insert,
            shard_capacity(config),
            total_actors=count,
            max_weight_lag=config.actors.max_weight_lag,
            pause_on_lag=config.actors.on_weight_lag == "pause",
        ),
        clock=clock,
    )


def make_accumulator(num_envs: int, algorithm: Algorithm, task: Task) -> Accumulator:
    """What turns the steps of so many environments into the records that the algorithm learns from."""
    names, response = {field.name for field in algorithm.record_fields(task)}, task.part("response")
    first_step = FirstStep(
        reward="first_reward" in names,
        response=slice(response.start, response.stop) if response and "first_response" in names else None,
    )
    gamma, scale, hours = algorithm.gamma, algorithm.reward_scale, algorithm.discount_hours
    if algorithm.n_step is None:
        return EpisodeAccumulator(num_envs, gamma, scale, first_step, hours)
    return NStepAccumulator(num_envs, algorithm.n_step, gamma, scale, first_step, hours)


def _moment_tracker(config: ExperimentConfig, task: Task) -> MomentTracker | None:
    environment = config.environment
    if not (environment.normalise_observations or environment.normalise_rewards):
        return None
    return MomentTracker(
        environment.num_envs,
        task.observation_shape if environment.normalise_observations else None,
        config.algorithm.gamma if environment.normalise_rewards else None,
    )


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where torch finds a GPU, else `cpu`.

    Raises:
        ConfigError: the device does not exist here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"learner.device: {device!r} cannot be used here ({reason}); try auto or cpu") from error
    return device
