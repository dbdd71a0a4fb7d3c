"""`headrace collect`: a log of what a simple policy did, as `replay.init_from` reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.environments import make_vector_env
from actors.ladder import find_baselines
from actors.seeds import derive, generator
from actors.timestep import TimeStep
from actors.vector_steps import VectorSteps
from distributed.build import make_accumulator, make_spec, make_task
from distributed.config import ExperimentConfig
from learners.policies import Action
from replay_server.errors import ConfigError
from replay_server.local import snapshot_name
from replay_server.rate_limiter import RateLimiter
from replay_server.shard import Shard
from replay_server.table import Table


def collect(config: ExperimentConfig, policy: str, records: int, directory: Path, *, organic: bool = False) -> float:
    """Write `directory`/replay-0.h5: records of the config's layout that one of the environment's baselines made.

    Each holds the probability with which its action was chosen (`behaviour_log_prob`), a baseline's own: 1 where it
    draws nothing.

    Args:
        config: the experiment that will read them; `run.seed` decides everything.
        policy: name of the baseline.
        records: how many.
        directory: is made where it does not exist.
        organic: the records' action is what the user consumed next by himself (`next_item`), their reward 1 and their
            probability 1: sequences to clone instead of feedback on what was shown.

    Returns:
        The mean reward of a record.

    Raises:
        ConfigError: there is no such baseline, or the environment does not tell what is consumed.
        InvalidRecord: the algorithm's records have columns that a baseline does not give.
    """
    task = make_task(config)
    spec = make_spec(config, task)
    seed = derive(config.run.seed, "collect", policy)
    table = Table(spec, records, sampler="uniform", priority_exponent=0.0, seed=seed, shard=0, incarnation=0)
    shard = Shard(table, RateLimiter())
    steps = VectorSteps(make_vector_env(config.environment, config.environment.num_envs))
    try:
        acting, rng = _baseline(steps, policy), generator(seed, "choices")
        told = getattr(acting, "observe", None)
        accumulator = make_accumulator(steps.num_envs, config.algorithm, task)
        observation, written, total = steps.reset(seed), 0, 0.0
        accumulator.first(observation)
        while written < records:
            action = acting.act(observation, rng, explore=True, env_steps=written)
            timestep = steps.step(action.action)
            if told is not None:
                told(action, timestep)
            logged = _consumed(timestep, steps.name) if organic else (action, timestep)
            columns = accumulator.step(logged[0], 0, logged[1])
            some = {name: column[: records - written] for name, column in columns.items()}
            shard.preload(spec.pack(some))
            written += len(some["reward"])
            total += float(some["reward"].sum())
            observation = timestep.observation
    finally:
        steps.close()
    directory.mkdir(parents=True, exist_ok=True)
    shard.save(str(directory / snapshot_name(0)))
    return total / records


def _baseline(steps: VectorSteps, name: str) -> Any:
    offered = find_baselines(steps.env)
    if name not in offered:
        known = ", ".join(offered) or "none"
        raise ConfigError(f"--policy: {steps.name} has no baseline {name!r}; it has {known}")
    return offered[name](steps.env.unwrapped)


def _consumed(timestep: TimeStep, env_name: str) -> tuple[Action, TimeStep]:
    """The step as if what was consumed had been chosen and rewarded with 1."""
    if timestep.next_item is None:
        raise ConfigError(f"--organic: {env_name} does not tell what users consume next (`next_item` in its info)")
    certain = np.zeros(len(timestep.next_item), dtype=np.float32)
    rows = timestep.valid & (timestep.next_item >= 0)
    reward = np.ones_like(timestep.reward)
    return Action(timestep.next_item, certain), replace(timestep, reward=reward, valid=rows)
