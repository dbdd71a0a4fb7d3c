"""tianshou's DQN and TD3: `python tianshou_learning.py WORK_JSON` (see learning_peer.py).

The settings are those of tianshou's own scripts: `test/discrete/test_dqn.py` (CartPole),
`examples/box2d/lunarlander_dqn.py` (found by Optuna), `test/continuous/test_td3.py` (Pendulum) and
`examples/mujoco/mujoco_td3.py`, its general TD3, for the continuous LunarLander, for which it has none. Its off-policy
trainer collects and updates in turn, as is done here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.remove(str(Path(__file__).parent))  # a file there is called like the package
import gymnasium
import numpy as np
import torch
from tianshou.algorithm import DQN, TD3
from tianshou.algorithm.modelfree.ddpg import ContinuousDeterministicPolicy
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.exploration import GaussianNoise
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorDeterministic, ContinuousCritic
from tianshou.utils.torch_utils import policy_within_training_step, torch_train_mode

sys.path.insert(0, str(Path(__file__).parent))
from learning_peer import Training, Work, serve


@dataclass(frozen=True)
class Settings:
    """What its scripts set; `updates` are made after each `collect` environment steps."""

    hidden_sizes: list[int]
    learning_rate: float
    gamma: float
    n_step: int
    buffer: int
    start: int
    envs: int
    collect: int
    updates: int
    batch: int
    actor_learning_rate: float | None = None
    target_update_period: int = 0
    exploration: str = ""


SETTINGS = {
    "CartPole-v1": Settings(
        [128, 128, 128, 128], 1e-3, 0.9, 3, 20_000, 640, 10, 10, 1, 64, target_update_period=320,
        exploration="epsilon 0.1 for 10k steps, then linearly to 0.01 at 50k",
    ),
    "LunarLander-v3": Settings(
        [128, 128], 0.013, 0.99, 4, 100_000, 2_048, 16, 16, 1, 128, target_update_period=500,
        exploration="epsilon 0.73 x (1 - 5e-6)^steps",
    ),
    "Pendulum-v1": Settings(
        [128, 128], 1e-3, 0.99, 3, 20_000, 0, 8, 8, 1, 128, actor_learning_rate=1e-4, exploration="sigma 0.1",
    ),
    "LunarLander-v3 continuous": Settings(
        [256, 256], 3e-4, 0.99, 1, 1_000_000, 25_000, 1, 1, 1, 256, actor_learning_rate=3e-4, exploration="sigma 0.1",
    ),
}  # fmt: skip


def epsilon(task: str, steps: int) -> float:
    """The chance of a random action that its script sets after so many environment steps."""
    if task == "CartPole-v1":
        return 0.1 - 0.09 * min(max(steps - 10_000, 0) / 40_000, 1.0)
    return max(0.73 * (1.0 - 5e-6) ** steps, 0.01)


def make_dqn(env: gymnasium.Env, settings: Settings) -> DQN:
    """Double DQN; the lander's network is dueling, as in its script."""
    sides = ({"hidden_sizes": [128, 128]}, {"hidden_sizes": [128, 128]}) if settings.n_step == 4 else None
    net = Net(
        state_shape=env.observation_space.shape, action_shape=int(env.action_space.n),
        hidden_sizes=settings.hidden_sizes, dueling_param=sides,
    )  # fmt: skip
    policy = DiscreteQLearningPolicy(model=net, action_space=env.action_space)
    return DQN(
        policy=policy, optim=AdamOptimizerFactory(lr=settings.learning_rate), gamma=settings.gamma,
        n_step_return_horizon=settings.n_step, target_update_freq=settings.target_update_period,
    )  # fmt: skip


def make_td3(env: gymnasium.Env, settings: Settings) -> TD3:
    """TD3 with two critics; noises are in units of the largest action."""
    shape, action = env.observation_space.shape, env.action_space.shape
    largest = float(env.action_space.high[0])

    def critic() -> ContinuousCritic:
        net = Net(state_shape=shape, action_shape=action, hidden_sizes=settings.hidden_sizes, concat=True)
        return ContinuousCritic(preprocess_net=net)

    actor = ContinuousActorDeterministic(
        preprocess_net=Net(state_shape=shape, hidden_sizes=settings.hidden_sizes),
        action_shape=action, max_action=largest,
    )  # fmt: skip
    policy = ContinuousDeterministicPolicy(
        actor=actor, exploration_noise=GaussianNoise(sigma=0.1 * largest), action_space=env.action_space
    )
    rates = [AdamOptimizerFactory(lr=rate) for rate in (settings.actor_learning_rate, *(settings.learning_rate,) * 2)]
    return TD3(
        policy=policy, policy_optim=rates[0], critic=critic(), critic_optim=rates[1], critic2=critic(),
        critic2_optim=rates[2], tau=0.005, gamma=settings.gamma, policy_noise=0.2 * largest, update_actor_freq=2,
        noise_clip=0.5 * largest, n_step_return_horizon=settings.n_step,
    )  # fmt: skip


def greedy(policy: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Actions [B] of observations [B]."""

    def act(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad(), torch_train_mode(policy, False):
            chosen = policy(Batch(obs=observation, info=Batch())).act
        return policy.map_action(chosen.detach().numpy() if isinstance(chosen, torch.Tensor) else np.asarray(chosen))

    return act


def train(work: Work) -> tuple[Training, dict[str, Any]]:
    """One training, in the turns of tianshou's off-policy trainer."""
    torch.set_num_threads(work.threads)
    np.random.seed(work.seed)  # noqa: NPY002, tianshou draws from it
    torch.manual_seed(work.seed)
    settings = SETTINGS[work.task]
    if work.hidden_sizes is not None:
        settings = replace(settings, hidden_sizes=work.hidden_sizes)
    env = work.make()
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    algorithm = make_dqn(env, settings) if discrete else make_td3(env, settings)
    envs = DummyVectorEnv([work.make for _ in range(settings.envs)])
    envs.seed(work.seed)
    buffer = VectorReplayBuffer(settings.buffer, settings.envs)
    collector = Collector(algorithm, envs, buffer, exploration_noise=True)
    collector.reset()
    training = Training(work, greedy(algorithm.policy))
    training.start()
    steps = settings.start
    if steps:
        collector.collect(n_step=steps, random=not discrete)
    while not training.over(steps):
        with policy_within_training_step(algorithm.policy):
            if discrete:
                algorithm.policy.set_eps_training(epsilon(work.task, steps))
            steps += collector.collect(n_step=settings.collect).n_collected_steps
            for _ in range(settings.updates):
                with torch_train_mode(algorithm, True):
                    algorithm.update(buffer=buffer, sample_size=settings.batch)
                training.updates += 1
    facts = {"algorithm": type(algorithm).__name__, "settings": asdict(settings), "torch": torch.__version__}
    return training, facts | {"version": version("tianshou"), "gymnasium": version("gymnasium")}


serve(train)
