"""Learners to be timed, and the batches they learn from."""

from __future__ import annotations

from typing import Any

import numpy as np

from distributed.bench.workload import ALPHA, BATCH
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.td3 import TD3Config
from learners.learner import Learner
from learners.task import ContinuousActions, DiscreteActions, Task
from replay_server.batches import KEY_DTYPE, SampleBatch
from replay_server.transitions import transition_spec

OBSERVATION, ACTIONS = 8, 4
POOL = 32  # different batches in turn
TAU, GAMMA = 0.005, 0.99
_DIMENSIONS = 2
_DISCRETE = Task(observation_dtype="float32", observation_shape=(OBSERVATION,), actions=DiscreteActions(ACTIONS))
_CONTINUOUS = Task(
    observation_dtype="float32",
    observation_shape=(OBSERVATION,),
    actions=ContinuousActions((-1.0,) * _DIMENSIONS, (1.0,) * _DIMENSIONS),
)


def columns(rng: np.random.Generator, continuous: bool) -> dict[str, Any]:
    """Columns of one batch."""
    action = rng.uniform(-1.0, 1.0, (BATCH, _DIMENSIONS)).astype(np.float32)
    return {
        "observation": rng.standard_normal((BATCH, OBSERVATION), np.float32),
        "next_observation": rng.standard_normal((BATCH, OBSERVATION), np.float32),
        "action": action if continuous else rng.integers(0, ACTIONS, BATCH),
        "reward": rng.standard_normal(BATCH, np.float32),
        "discount": np.full(BATCH, GAMMA, np.float32),
        "behaviour_log_prob": np.zeros(BATCH, np.float32),
        "policy_version": np.zeros(BATCH, np.int64),
    }


def learner_and_batches(kind: str, units: int) -> tuple[Learner, list[SampleBatch]]:
    """A fresh learner, `dqn`, `double` or `td3` with two layers of so many units, and a pool of drawn batches."""
    sizes = (units, units)
    config: DQNConfig | TD3Config = TD3Config(hidden_sizes=sizes, batch_size=BATCH)
    task = _CONTINUOUS
    action: tuple[str, tuple[int, ...]] = ("float32", (_DIMENSIONS,))
    if kind != "td3":
        config = DQNConfig(
            hidden_sizes=sizes, batch_size=BATCH, double=kind == "double", dueling=False, target_update_tau=TAU
        )
        task, action = _DISCRETE, ("int64", ())
    spec, rng = transition_spec(("float32", (OBSERVATION,)), action, {}), np.random.default_rng(0)
    drawn = []
    for _ in range(POOL):
        mass = rng.exponential(size=BATCH) ** ALPHA
        records, keys = spec.pack(columns(rng, kind == "td3")), np.zeros(BATCH, KEY_DTYPE)
        drawn.append(SampleBatch(spec, records, keys, mass / mass.sum() / POOL, BATCH * POOL, 0))
    return config.make_learner(task, spec, seed=0, device="cpu"), drawn
