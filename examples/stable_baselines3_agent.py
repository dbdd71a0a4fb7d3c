"""Stable-Baselines3's DQN recommends films to our simulated users: other people's agents need nothing of headrace's.

pip install stable-baselines3
python examples/stable_baselines3_agent.py --steps 20000
"""

from __future__ import annotations

import argparse

import gymnasium
from stable_baselines3 import DQN
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import actors.envs  # noqa: F401  registers headrace/...-v0 with Gymnasium


def main() -> None:
    """Train, then print the mean return of greedy episodes on other users."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--episodes", type=int, default=30)
    arguments = parser.parse_args()
    agent = DQN(
        "MlpPolicy", gymnasium.make("headrace/MoviePick10-v0"), gamma=0.9, learning_starts=min(1_000, arguments.steps),
        policy_kwargs={"net_arch": [128, 128]}, seed=0,
    )  # fmt: skip
    agent.learn(arguments.steps)
    users = Monitor(gymnasium.make("headrace/MoviePick10-v0"))
    users.reset(seed=1_000_000)
    mean, deviation = evaluate_policy(agent, users, n_eval_episodes=arguments.episodes)
    print(f"mean return {mean:.1f} +- {deviation / arguments.episodes**0.5:.1f} over {arguments.episodes} users")


if __name__ == "__main__":
    main()
