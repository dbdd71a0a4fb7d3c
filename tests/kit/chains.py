"""A chain of states whose best values are known, as records that hold every state and action once."""

from __future__ import annotations

import numpy as np

from learners.task import DiscreteActions, Task

STATES, ACTIONS, GAMMA = 5, 2, 0.9
CHAIN = Task(observation_dtype="float32", observation_shape=(STATES,), actions=DiscreteActions(ACTIONS))


def chain_step(state: int, action: int) -> tuple[int, float, bool]:
    """Action 1 walks right, action 0 jumps home for a crumb; stepping off the right end pays and terminates."""
    if action == 0:
        return 0, 0.05, False
    if state == STATES - 1:
        return state, 2.0, True
    return state + 1, 0.0, False


def chain_optimum() -> np.ndarray:
    """Q* [STATES, ACTIONS], by value iteration."""
    q = np.zeros((STATES, ACTIONS))
    for _ in range(500):
        for state in range(STATES):
            for action in range(ACTIONS):
                successor, reward, terminated = chain_step(state, action)
                q[state, action] = reward + (0.0 if terminated else GAMMA * q[successor].max())
    return q


def chain_columns(n_step: int, optimal: np.ndarray) -> dict[str, np.ndarray]:
    """Every state and action once, followed by n - 1 greedy steps, so that n-step targets have the same optimum."""
    rows = []
    for state in range(STATES):
        for action in range(ACTIONS):
            position, total, discount, choice = state, 0.0, 1.0, action
            for _ in range(n_step):
                position, reward, terminated = chain_step(position, choice)
                total += discount * reward
                discount *= 0.0 if terminated else GAMMA
                choice = int(optimal[position].argmax())
                if terminated:
                    break
            rows.append((state, action, total, discount, position))
    eye = np.eye(STATES, dtype=np.float32)
    states, actions, rewards, discounts, successors = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "observation": eye[states],
        "next_observation": eye[successors],
        "action": actions.astype(np.int64),
        "reward": rewards.astype(np.float32),
        "discount": discounts.astype(np.float32),
        "behaviour_log_prob": np.zeros(len(rows), np.float32),
        "policy_version": np.zeros(len(rows), np.int64),
    }
