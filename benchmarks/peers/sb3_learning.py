"""Stable-Baselines3's DQN and TD3 with tuned settings: `python sb3_learning.py WORK_JSON` (see learning_peer.py).

The settings are those of rl_zoo3 2.9.2, `rl_zoo3/hyperparams/dqn.yml` and `td3.yml` (its LunarLanderContinuous-v3 is
LunarLander-v3 with `continuous=True`). Where the zoo stops after `n_timesteps` the run goes on to its time limit; the
exploration schedule keeps its length in steps.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise

sys.path.insert(0, str(Path(__file__).parent))
from learning_peer import Training, Work, serve

LONGER = 20
TD3_OF_THE_ZOO = {
    "learning_rate": 1e-3, "gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000, "train_freq": 1,
    "gradient_steps": 1, "policy_kwargs": {"net_arch": [400, 300]},
}  # fmt: skip
SETTINGS: dict[str, tuple[type[DQN] | type[TD3], int, dict[str, Any]]] = {
    "CartPole-v1": (DQN, 50_000, {
        "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1_000, "gamma": 0.99,
        "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
    }),
    "LunarLander-v3": (DQN, 100_000, {
        "learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000, "learning_starts": 0, "gamma": 0.99,
        "target_update_interval": 250, "train_freq": 4, "gradient_steps": -1, "exploration_fraction": 0.12,
        "exploration_final_eps": 0.1, "policy_kwargs": {"net_arch": [256, 256]},
    }),
    "Pendulum-v1": (TD3, 20_000, TD3_OF_THE_ZOO),
    "LunarLander-v3 continuous": (TD3, 300_000, TD3_OF_THE_ZOO),
}  # fmt: skip


class Watch(BaseCallback):
    """Ends the training when it is over."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self._training = training

    def _on_step(self) -> bool:
        self._training.updates = self.model._n_updates
        return not self._training.over(self.num_timesteps)


def train(work: Work) -> tuple[Training, dict[str, Any]]:
    """One training."""
    torch.set_num_threads(work.threads)
    kind, steps, tuned = SETTINGS[work.task]
    settings = dict(tuned)
    if work.hidden_sizes is not None:
        settings["policy_kwargs"] = {"net_arch": work.hidden_sizes}
    facts = {"algorithm": kind.__name__, "settings": dict(settings), "torch": torch.__version__}
    env = work.make()
    if kind is TD3:
        size = env.action_space.shape[0]
        settings["action_noise"] = NormalActionNoise(np.zeros(size), 0.1 * np.ones(size))
    else:
        settings["exploration_fraction"] /= LONGER
    model = kind("MlpPolicy", env, seed=work.seed, device="cpu", **settings)
    training = Training(work, lambda observation: model.predict(observation, deterministic=True)[0])
    training.start()
    model.learn(steps * LONGER, callback=Watch(training))
    return training, facts | {"version": version("stable-baselines3"), "gymnasium": version("gymnasium")}


serve(train)
