"""Batches made by hand for learners, and proof that every setting of an algorithm does something."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch

from learners.algorithm import AlgorithmConfig
from learners.task import ContinuousActions, DiscreteActions, Task
from replay_server.batches import KEY_DTYPE, SampleBatch
from replay_server.specs import RecordSpec
from replay_server.transitions import transition_spec

DISCRETE = Task(observation_dtype="float32", observation_shape=(5,), actions=DiscreteActions(3))
CONTINUOUS = Task(
    observation_dtype="float32", observation_shape=(5,), actions=ContinuousActions((-1.0, -2.0), (1.0, 0.5))
)

_DECAY = {"final_learning_rate": 5e-4, "learning_rate_decay_env_steps": 300}
_RESTARTS = {**_DECAY, "learning_rate_decay": "restarts"}

COMMON: dict[str, Any] = {
    "learning_rate": 3e-2,
    "final_learning_rate": (1e-4, _DECAY),
    "learning_rate_decay_env_steps": (150, _DECAY),
    "learning_rate_decay": ("cosine", _DECAY),
    "learning_rate_restart_growth": (3.0, _RESTARTS),
    "optimizer": "radam",
    "adam_epsilon": 1e-2,
    "momentum": (0.5, {"optimizer": "sgd"}),
    "weight_decay": 0.1,
    "lookahead_period_updates": 2,
    "lookahead_alpha": (0.9, {"lookahead_period_updates": 2}),
    "hidden_sizes": (8,),
    "activation": "tanh",
    "max_grad_norm": 1e-3,
    "importance_beta": 0.9,
    "final_importance_beta": 0.5,
    "importance_beta_env_steps": 500,
    "priority_epsilon": 0.5,
}
"""Other values for fields of every gradient-based algorithm that a few updates show."""

NOT_IN_UPDATES = {
    "type", "gamma", "discount_hours", "n_step", "reward_scale", "batch_size", "diagnose_every_updates",
    "max_skipped_updates", "torso", "embedding_size", "encoder_size", "attention_heads", "attention_layers",
}  # fmt: skip
"""Fields of AlgorithmConfig that act in accumulator, loop or metrics, when something goes wrong, or only where
observations have items: tested there."""


def spec_of(config: Any, task: Task) -> RecordSpec:
    """The records an algorithm learns from."""
    observation = (task.observation_dtype, task.observation_shape)
    match task.actions:
        case DiscreteActions():
            action: tuple[str, tuple[int, ...]] = ("int64", ())
        case ContinuousActions():
            action = ("float32", (task.actions.size,))
        case _:
            action = ("int64", (task.actions.slots,))
    return transition_spec(observation, action, {}, config.record_fields(task))


def random_columns(config: Any, task: Task, rng: np.random.Generator, size: int = 16) -> dict[str, np.ndarray]:
    """Columns of random records: normal numbers, whole ones and actions of their spaces, zeros in further fields."""
    spec = spec_of(config, task)
    columns = {f.name: np.zeros((size, *f.shape), f.numpy_dtype) for f in spec.fields}
    for name in ("observation", "next_observation", "reward"):
        columns[name] = rng.normal(size=columns[name].shape).astype(columns[name].dtype)
        for part in task.parts if name != "reward" else ():
            seen = columns[name][:, part.start : part.stop]
            seen[:] = rng.integers(0, part.largest + 1, seen.shape) if part.integer else np.abs(seen)
    columns["discount"] = np.where(rng.random(size) < 0.2, 0.0, 0.9).astype(np.float32)
    match task.actions:
        case DiscreteActions(count):
            columns["action"] = rng.integers(0, count, size)
        case ContinuousActions(low, high):
            columns["action"] = rng.uniform(low, high, (size, len(low))).astype(np.float32)
        case _:
            everything = np.tile(np.arange(task.actions.candidates), (size, 1))
            columns["action"] = rng.permuted(everything, axis=1)[:, : task.actions.slots]
    if "first_response" in columns:
        columns["first_response"] = rng.integers(0, 2, columns["first_response"].shape).astype(np.float32)
    columns["behaviour_log_prob"] = np.log(rng.uniform(0.1, 0.9, size)).astype(np.float32)
    return columns


def batch_of(
    spec: RecordSpec, columns: dict[str, np.ndarray], probabilities: np.ndarray | None = None, inserted: int = 0
) -> SampleBatch:
    """Records as a sample; drawn uniformly unless `probabilities` say otherwise."""
    size = len(columns["reward"])
    if probabilities is None:
        probabilities = np.full(size, 1.0 / size)
    return SampleBatch(spec, spec.pack(columns), np.zeros(size, KEY_DTYPE), probabilities, size, inserted)


def random_batch(config: Any, task: Task, seed: int = 0, probabilities: np.ndarray | None = None) -> SampleBatch:
    """Random records as a sample."""
    return batch_of(spec_of(config, task), random_columns(config, task, np.random.default_rng(seed)), probabilities)


def learner_of(config: Any, task: Task, seed: int = 0) -> Any:
    """A fresh learner on the CPU."""
    return config.make_learner(task, spec_of(config, task), seed=seed, device="cpu")


def policy_of(config: Any, task: Task, envs: int = 1, learner: Any = None) -> Any:
    """A policy for all environments of a run, with the weights of a learner; without one of a fresh one."""
    policy = config.make_policy(task, env_indices=range(envs), total_envs=envs)
    policy.load((learner or learner_of(config, task)).snapshot())
    return policy


def trained(config: Any, task: Task, updates: int = 5, seed: int = 0) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """State of a fresh learner after updates from fixed random batches of unequal probability, and its outputs."""
    rng, spec = np.random.default_rng(seed), spec_of(config, task)
    learner, outputs = learner_of(config, task, seed), []
    for update in range(updates):
        probabilities = rng.uniform(0.2, 1.8, 16) / 16
        columns = random_columns(config, task, rng)
        outputs.append(learner.step(batch_of(spec, columns, probabilities, inserted=100 * update)))
    return learner.state_dict(), outputs


def every_field_matters(base: AlgorithmConfig, task: Task, changes: dict[str, Any], elsewhere: set[str]) -> None:
    """Fail unless every field of the config is changed here and shows after a few updates, or is named in `elsewhere`.

    Args:
        base: settings to start from.
        task: what to learn.
        changes: field -> another value, or (another value, {field: value} that both sides have set).
        elsewhere: fields that act outside the learner (in policies, say), tested there, or not at all for this one.
    """
    changes = {**{name: value for name, value in COMMON.items() if name not in elsewhere}, **changes}
    names = {field.name for field in msgspec.structs.fields(type(base))}
    left_out = names - changes.keys() - elsewhere - NOT_IN_UPDATES
    assert not left_out, f"no test changes {sorted(left_out)}"
    for name, change in changes.items():
        value, given = change if isinstance(change, tuple) and isinstance(change[-1], dict) else (change, {})
        before = msgspec.structs.replace(base, **given)
        after = msgspec.structs.replace(before, **{name: value})
        assert _differ(trained(before, task), trained(after, task)), f"{name} = {value} changes nothing"


def _differ(one: tuple[dict[str, torch.Tensor], list[Any]], other: tuple[dict[str, torch.Tensor], list[Any]]) -> bool:
    states, outputs = (one[0], other[0]), (one[1], other[1])
    if states[0].keys() != states[1].keys():
        return True
    if any(not torch.equal(value, states[1][name]) for name, value in states[0].items()):
        return True
    return any(
        a is not None and b is not None and not np.array_equal(a.priorities, b.priorities)
        for a, b in zip(*outputs, strict=True)
    )


def own_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """What the algorithm itself measures, without what every learner does."""
    common = {"learning_rate", "importance_beta", "sampling_weight"}
    return {name: m for name, m in metrics.items() if name not in common and not name.startswith("gradient_norm_")}
