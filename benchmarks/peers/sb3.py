"""Stable-Baselines3's DQN and TD3: one gradient step, `python sb3.py WORKLOAD_JSON` (see peer.py).

Its replay buffer gives batches drawn before, so that only updates are measured; the logger writes nowhere. DQN moves
its target softly after each step, as `learn` does with `tau` and `target_update_interval=1`.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import cycle
from typing import Any

import gymnasium
import numpy as np
import torch
from peer import Operation, Peer, Workload, serve
from stable_baselines3 import DQN, TD3
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update

ACTIONS, DIMENSIONS, TAU = 4, 2, 0.005


class Spaces(gymnasium.Env):
    """Nothing but spaces: nobody steps it."""

    def __init__(self, dim: int, continuous: bool) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (dim,), np.float32)
        box = gymnasium.spaces.Box(-1.0, 1.0, (DIMENSIONS,), np.float32)
        self.action_space = box if continuous else gymnasium.spaces.Discrete(ACTIONS)


def batches(work: Workload, continuous: bool) -> Any:
    rng, made = np.random.default_rng(work.seed), []
    for _ in range(work.records // work.batch):
        rows = work.batch
        action = rng.integers(0, ACTIONS, (rows, 1))
        if continuous:
            action = rng.uniform(-1, 1, (rows, DIMENSIONS)).astype(np.float32)
        columns = (
            rng.standard_normal((rows, work.dim), np.float32),
            action,
            rng.standard_normal((rows, work.dim), np.float32),
            np.zeros((rows, 1), np.float32),
            rng.standard_normal((rows, 1), np.float32),
        )
        made.append(ReplayBufferSamples(*(torch.from_numpy(column) for column in columns)))
    return cycle(made)


def operation(kind: type, units: int, work: Workload) -> Operation:
    model = kind(
        "MlpPolicy",
        Spaces(work.dim, kind is TD3),
        policy_kwargs={"net_arch": [units, units]},
        batch_size=work.batch,
        buffer_size=work.batch,
        learning_rate=1e-3,
        tau=TAU,
        device="cpu",
        seed=work.seed,
    )
    model.set_logger(Logger(None, []))
    pool = batches(work, kind is TD3)
    model.replay_buffer.sample = lambda *_, **__: next(pool)

    def step() -> int:
        model.train(gradient_steps=1, batch_size=work.batch)
        if kind is DQN:
            with torch.no_grad():
                polyak_update(model.q_net.parameters(), model.q_net_target.parameters(), TAU)
        return 1

    return Operation(step)


def make(work: Workload) -> Peer:
    """Its two algorithms with both sizes of network."""
    torch.set_num_threads(1)
    kinds = {"dqn": DQN, "td3": TD3}
    operations = {
        f"{name}-{units}": operation(kind, units, work) for name, kind in kinds.items() for units in (64, 256)
    }
    return Peer(operations, work.records, {"version": version("stable_baselines3"), "torch": torch.__version__})


serve(make)
