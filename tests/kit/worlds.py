"""Small environments and wrappers that tests train in."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class LastThree(gymnasium.wrappers.FrameStackObservation):
    """Observations of the last three steps, [3, n]."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env, 3)


class Sweets(gymnasium.Env[Any, Any]):
    """Slates of 2 out of 4 sweets, put before the user in a new order each step; 20 steps.

    A user is hungry (0) or sick (1), and consumes sweet i with probability v_i / (1 + sum of the slate's v). Sweet 0
    pays most and makes sick; the sick pay little, and get well by sweet 3 alone, which pays nothing.
    """

    SCORES = ((4.0, 3.0, 1.0, 0.5), (4.0, 1.0, 1.0, 0.5))
    REWARDS = ((1.0, 0.5, 0.3, 0.0), (0.1, 0.05, 0.02, 0.0))
    NEXT = ((1, 0, 0, 0), (1, 1, 1, 0))
    STEPS = 20

    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(0, 1, (2,), dtype=np.float32),
            "candidates": spaces.Box(-1, 3, (4,), dtype=np.int64),
            "choice_scores": spaces.Box(0, 10, (5,), dtype=np.float32),
            "response": spaces.MultiBinary(2),
        }
    )
    action_space = spaces.MultiDiscrete([4, 4])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state, self.t = int(self.np_random.integers(2)), 0
        return self._observe([0, 0]), {}

    def step(self, action: Any) -> Any:
        assert action[0] != action[1], "a slate shows a sweet twice"
        shown = [int(self.order[place]) for place in action]
        scores = [self.SCORES[self.state][sweet] for sweet in shown]
        draw = self.np_random.random() * (1.0 + sum(scores))
        response, reward = [0, 0], 0.0
        for place in range(2):
            if sum(scores[:place]) <= draw < sum(scores[: place + 1]):
                response[place] = 1
                reward = self.REWARDS[self.state][shown[place]]
                self.state = self.NEXT[self.state][shown[place]]
                break
        self.t += 1
        return self._observe(response), reward, False, self.t >= self.STEPS, {}

    def _observe(self, response: list[int]) -> dict[str, Any]:
        self.order = self.np_random.permutation(4)
        scores = np.array([*(self.SCORES[self.state][sweet] for sweet in self.order), 1.0], dtype=np.float32)
        return {
            "observation": np.eye(2, dtype=np.float32)[self.state],
            "candidates": self.order,
            "choice_scores": scores,
            "response": np.array(response, dtype=np.int8),
        }

    @classmethod
    def optimum(cls, gamma: float, uniform: bool = False) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Qbar [2, 5] of consuming each sweet or none, and the best pairs; if `uniform` that of random slates."""
        pairs = list(combinations(range(4), 2))
        value, q = np.zeros(2), np.zeros((2, 5))
        for _ in range(2000):
            for state in range(2):
                for sweet in range(4):
                    q[state, sweet] = cls.REWARDS[state][sweet] + gamma * value[cls.NEXT[state][sweet]]
                q[state, 4] = gamma * value[state]
            worth = np.array([[cls._worth(q[state], state, pair) for pair in pairs] for state in range(2)])
            value = worth.mean(axis=1) if uniform else worth.max(axis=1)
        return q, [pairs[i] for i in worth.argmax(axis=1)]

    @classmethod
    def _worth(cls, q: np.ndarray, state: int, pair: tuple[int, int]) -> float:
        scores = np.array([cls.SCORES[state][i] for i in pair] + [1.0])
        return float(scores @ q[[*pair, 4]] / scores.sum())


class Corridor(gymnasium.Env[Any, Any]):
    """A person walked through six rooms, one a step, and asks for the one that comes next on the way back.

    The right item is the one seen two steps ago: only the history of the last four says which that is. Four places
    offer four of the six items, one of them the right one, and another is forbidden. Eight steps, 1 for each right one.
    """

    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (1,), dtype=np.float32),
            "history": spaces.Box(-1, 5, (4,), dtype=np.int64),
            "candidates": spaces.Box(-1, 5, (4,), dtype=np.int64),
            "action_mask": spaces.MultiBinary(4),
        }
    )
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.history, self.t = [int(room) for room in self.np_random.permutation(6)[:2]], 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert action != self.forbidden, "a forbidden place was chosen"
        reward = float(self.candidates[action] == self.history[-2])
        self.history.append(int(self.np_random.integers(6)))
        self.t += 1
        return self._observe(), reward, False, self.t == 8, {}

    def _observe(self) -> dict[str, Any]:
        right = self.history[-2]
        others = [room for room in range(6) if room != right]
        self.candidates = np.array([right, *self.np_random.permutation(others)[:3]])
        order = self.np_random.permutation(4)
        self.candidates, self.forbidden = self.candidates[order], int(np.flatnonzero(order == 3)[0])
        mask = np.ones(4, dtype=np.int8)
        mask[self.forbidden] = 0
        history = ([-1] * 4 + self.history)[-4:]
        return {
            "observation": self.np_random.uniform(-1, 1, 1).astype(np.float32),
            "history": np.array(history),
            "candidates": self.candidates,
            "action_mask": mask,
        }


class Spot(gymnasium.Env[Any, Any]):
    """A bright spot on a dark image of 36 x 36; the action is to say in which quarter it is. Eight steps."""

    observation_space = spaces.Box(0, 255, (36, 36, 1), dtype=np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        reward = float(action == self.quarter)
        self.t += 1
        return self._observe(), reward, False, self.t == 8, {}

    def _observe(self) -> Any:
        self.quarter = int(self.np_random.integers(4))
        image = self.np_random.integers(0, 40, (36, 36, 1), dtype=np.uint8)
        row, column = self.np_random.integers(2, 12, 2) + 18 * np.array(divmod(self.quarter, 2))
        image[row : row + 4, column : column + 4] = 250
        return image


MODULE = """
import gymnasium, numpy as np
class Corridor(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.full(3, self.t / 10, np.float32), float(action), self.t == 10, False, {}
"""
"""A module of a user's own, with the environment `Corridor`."""
