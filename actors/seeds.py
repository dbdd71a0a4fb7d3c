"""Seeds for every random stream of a run, derived from `run.seed` with stable keys."""

from __future__ import annotations

import hashlib
from enum import Enum

import numpy as np

_FAMILY_BITS = 28
_ROOM = 1 << 20  # vector environments seed row i with seed + i; no range may reach into the next family


class SeedFamily(Enum):
    """Families whose environment seeds never meet: training, choosing checkpoints, and the final evaluation."""

    TRAINING = 0
    SELECTION = 1
    FINAL = 2


def _sequence(seed: int, keys: tuple[int | str, ...]) -> np.random.SeedSequence:
    words = [int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "little") for key in keys]
    return np.random.SeedSequence(entropy=seed, spawn_key=words)


def derive(seed: int, *keys: int | str, family: SeedFamily = SeedFamily.TRAINING) -> int:
    """An environment seed in [0, 2^30) for the stream named by `keys`.

    Args:
        seed: `run.seed`, >= 0.
        keys: names and numbers of the stream, for example ("actor", 3); order matters, 3 and "3" are the same.
        family: seeds s .. s + 2^20 - 1 of one family never appear in another.
    """
    number = int(_sequence(seed, keys).generate_state(1, np.uint32)[0])
    return (family.value << _FAMILY_BITS) + number % ((1 << _FAMILY_BITS) - _ROOM)


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """A generator for the stream named by `keys`, with the full entropy of the seed sequence."""
    return np.random.default_rng(_sequence(seed, keys))
