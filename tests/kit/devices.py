"""Proof that an update never asks its device for a value."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

import learners.algorithms
from actors.layouts import observation_layout, observation_parts
from kit.learning import CONTINUOUS, DISCRETE, batch_of, random_columns, spec_of
from kit.worlds import Sweets
from learners.algorithm import AlgorithmConfig
from learners.algorithms.dqn import DQNConfig
from learners.task import DiscreteActions, Part, SlateActions, Task
from replay_server.errors import ConfigError

_PARTS = (Part("observation", 0, 5, (5,), False), Part("history", 5, 9, (4,), True))
_HISTORY = {"observation_dtype": "float32", "observation_shape": (9,), "parts": _PARTS}
_SWEETS, _SHAPE = observation_layout(Sweets.observation_space)
TASKS = (
    DISCRETE,
    CONTINUOUS,
    Task(observation_dtype="float32", observation_shape=(5,), actions=SlateActions(4, 2)),
    Task(
        observation_dtype=_SWEETS,
        observation_shape=_SHAPE,
        actions=SlateActions(4, 2),
        parts=tuple(Part(**vars(part)) for part in observation_parts(Sweets.observation_space)),
    ),
    Task(**_HISTORY, actions=DiscreteActions(6), item_embeddings=np.ones((6, 3), np.float32)),
    Task(**_HISTORY, actions=CONTINUOUS.actions, item_embeddings=np.ones((6, 3), np.float32)),
)
_BESIDE: dict[Any, dict[str, Any]] = {("softmax", "sampled"): {"negatives": 2}}
"""What a choice takes on tasks as small as these."""


def algorithm_configs() -> dict[str, type[AlgorithmConfig]]:
    """The config class of every algorithm that ships, by its name."""
    found = {}
    for name in (module.name for module in pkgutil.iter_modules(learners.algorithms.__path__)):
        module = importlib.import_module(f"learners.algorithms.{name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, AlgorithmConfig) and _defaults(kind).get("type") == name:
                found[name] = kind
    return found


def variants(kind: type[AlgorithmConfig]) -> Iterator[AlgorithmConfig]:
    """Its smallest config, and that with each switch turned and each choice taken, where they contradict nothing.

    Settings that all algorithms share are varied in DQN alone.
    """
    base = kind(**_needed(kind))
    yield base
    shared = set() if kind is DQNConfig else {field.name for field in msgspec.structs.fields(AlgorithmConfig)}
    for field in (field for field in msgspec.structs.fields(kind) if field.name not in shared):
        for value in _others(msgspec.inspect.type_info(field.type), getattr(base, field.name)):
            try:
                yield msgspec.structs.replace(base, **{field.name: value, **_BESIDE.get((field.name, value), {})})
            except ValueError:
                continue


def tasks_of(config: AlgorithmConfig) -> list[Task]:
    """Those of the kit's tasks that the algorithm takes."""
    taken = []
    for task in TASKS:
        try:
            config.make_policy(task, env_indices=range(1), total_envs=1)  # type: ignore[attr-defined]
        except ConfigError:
            continue
        taken.append(task)
    return taken


def update_without_values(config: AlgorithmConfig, task: Task, first: int = 1) -> None:
    """Updates on device `meta`, where tensors have shapes and no values: whatever needs a value raises there.

    Updates `first` to 2 are made. The path is a GPU's, guard and diagnostics included, up to the copy of the results to
    the host.
    """
    config = msgspec.structs.replace(config, diagnose_every_updates=1)
    spec, rng = spec_of(config, task), np.random.default_rng(0)
    learner: Any = config.make_learner(task, spec, seed=0, device="meta")  # type: ignore[attr-defined]
    for update in range(first, 3):
        learner._updates = update
        finite, _ = learner._update_on_device(batch_of(spec, random_columns(config, task, rng), inserted=10 * update))
        assert finite.device.type == "meta"


def _defaults(kind: type[AlgorithmConfig]) -> dict[str, Any]:
    return {field.name: field.default for field in msgspec.structs.fields(kind)}


def _needed(kind: type[AlgorithmConfig]) -> dict[str, Any]:
    settings = {"hidden_sizes": (8,), "target_update_tau": 0.1}
    return {name: value for name, value in settings.items() if name in _defaults(kind)}


def _others(kind: Any, value: Any) -> list[Any]:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _others(kind.type, value)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [other for member in kind.types for other in _others(member, value)]
    if isinstance(kind, msgspec.inspect.BoolType):
        return [not value]
    if isinstance(kind, msgspec.inspect.LiteralType):
        return [other for other in kind.values if other != value]
    return []
