"""An environment whose every step can be told from every other of a run, so that a replay proves what it lost."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

PIDS, PLACES, STEPS = 2**22, 2**10, 2**24
"""More than there are; powers of two, so that a float32 share of them is exact."""


class Stamped(gymnasium.Env[Any, Any]):
    """Observes (process / PIDS, place in the process / PLACES, steps so far / STEPS); episodes of ten steps.

    Args:
        beats: directory where each process keeps a file named by its id, as long as the steps it has made.
        step_seconds: how long a step takes.
    """

    observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(2)
    _places = itertools.count()

    def __init__(self, beats: str, step_seconds: float) -> None:
        self._place = next(self._places)
        self._steps = 0
        self._seconds = step_seconds
        self._beats = (Path(beats) / str(os.getpid())).open("ab", buffering=0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._left = 10
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        time.sleep(self._seconds)
        self._beats.write(b".")
        self._steps += 1
        self._left -= 1
        return self._observe(), float(action), False, self._left == 0, {}

    def _observe(self) -> Any:
        stamp = np.array([os.getpid() / PIDS, self._place / PLACES, self._steps / STEPS])
        return stamp.astype(np.float32)


def stamps_of(observations: np.ndarray) -> np.ndarray:
    """[n, 3] whole numbers: process, place, step."""
    return np.rint(observations.astype(np.float64) * [PIDS, PLACES, STEPS]).astype(np.int64)


def check_stamps(stamps: np.ndarray, *, complete: bool) -> None:
    """No step is there twice, and none is missing between others of its process and place.

    Args:
        stamps: [n, 3] of one shard or of all.
        complete: nothing was overwritten, so that every sequence has its first step.
    """
    different, counts = np.unique(stamps, axis=0, return_counts=True)
    assert counts.max(initial=1) == 1, f"{int((counts > 1).sum())} steps are there twice: {different[counts > 1][:5]}"
    lives, life = np.unique(different[:, :2], axis=0, return_inverse=True)
    for index, (process, place) in enumerate(lives):
        steps = different[life.ravel() == index, 2]
        holes = steps.max() - steps.min() + 1 - len(steps)
        assert holes == 0, f"{holes} steps of place {place} in process {process} are missing"
        assert not complete or steps.min() == 0, f"place {place} of process {process} begins with step {steps.min()}"
