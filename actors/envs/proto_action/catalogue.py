"""The items of ProtoAction, fixed for a whole experiment."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.envs.proto_action.model import ProtoActionModel
from replay_server.errors import ConfigError

_BLOCK = 1 << 16  # items drawn at a time
_CENTRES = 200  # items that stand for the directions of a catalogue that tells none


@dataclass(frozen=True)
class Catalogue:
    """Items and the directions they gather around; nobody writes to either.

    Attributes:
        items: float32[N, d], unit vectors.
        centres: float32[C, d], unit vectors.
    """

    items: NDArray[np.float32]
    centres: NDArray[np.float32]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[..., d] divided by their length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def around(centres: NDArray[np.float32], count: int, noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """float32[count, d]: unit(a centre, each as likely, + normal noise of root mean square length `noise`)."""
    dim = centres.shape[1]
    chosen = centres[rng.integers(len(centres), size=count)]
    return unit(chosen + np.float32(noise / np.sqrt(dim)) * rng.standard_normal((count, dim), dtype=np.float32))


def draw_catalogue(model: ProtoActionModel) -> Catalogue:
    """The items of `model.catalogue_seed`; environments of one process share them."""
    return _drawn(model.catalogue_seed, model.items, model.dim, model.clusters, model.item_noise)


@functools.lru_cache(maxsize=4)
def _drawn(seed: int, items: int, dim: int, clusters: int, noise: float) -> Catalogue:
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((clusters, dim), dtype=np.float32))
    table = np.empty((items, dim), dtype=np.float32)
    for start in range(0, items, _BLOCK):
        block = table[start : start + _BLOCK]
        block[:] = around(centres, len(block), noise, rng)
    table.flags.writeable = centres.flags.writeable = False
    return Catalogue(table, centres)


def load_catalogue(path: str | Path) -> Catalogue:
    """Items from a .npy file of float32[N, d], scaled to unit length by whoever wrote it.

    The file is mapped, not read: all processes of a machine share its pages. Tastes gather around some of the items.

    Raises:
        ConfigError: no such file, or it holds something else.
    """
    try:
        items = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ConfigError(f"environment.kwargs.catalogue: {path} cannot be read as .npy: {error}") from error
    if items.ndim != 2 or items.dtype != np.float32 or not items.size:
        raise ConfigError(
            f"environment.kwargs.catalogue: {path} holds {items.dtype}{list(items.shape)}, expected float32[N, d]"
        )
    return Catalogue(items, np.array(items[:: -(-len(items) // _CENTRES)]))
