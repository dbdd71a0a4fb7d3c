"""How observations of a Gymnasium space are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from replay_server.errors import ConfigError

Layout = tuple[str, tuple[int, ...]]
"""numpy dtype name and shape of one value."""

LARGEST_INTEGER = 1 << 24
"""float32 tells whole numbers up to here apart."""


@dataclass(frozen=True)
class PartLayout:
    """One named array of an observation; a Dict space is packed into one float32 vector of them.

    What learners are told of it is `learners.task.Part`, which this package does not import.

    Attributes:
        name: key in the Dict space; `observation` where the space is no Dict.
        start: first number of the part in the vector.
        stop: one past its last.
        shape: shape of the part.
        integer: whole numbers.
        largest: largest whole number, 0 where they are none.
        categories: how many values each number of a Discrete or MultiDiscrete can take, from 0; empty for all others.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    integer: bool
    largest: int = 0
    categories: tuple[int, ...] = ()


def observation_layout(space: spaces.Space[Any]) -> Layout:
    """Layout of one observation; floating-point observations are stored as float32, a Dict as one float32 vector.

    Raises:
        ConfigError: a space that is neither one array nor a Dict of arrays (Tuple, Text, ...).
    """
    if isinstance(space, spaces.Dict):
        return "float32", (observation_parts(space)[-1].stop,)
    if isinstance(space, spaces.Box):
        return ("float32" if space.dtype.kind == "f" else space.dtype.name), space.shape
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return np.dtype(space.dtype).name, space.shape or ()
    raise ConfigError(
        f"environment.id: observation space {type(space).__name__} is neither one array of numbers nor a Dict of them; "
        "add gymnasium.wrappers.FlattenObservation to environment.wrappers"
    )


def observation_parts(space: spaces.Space[Any]) -> tuple[PartLayout, ...]:
    """The named arrays of one observation, in order.

    A Dict has one a key. A Discrete or MultiDiscrete has one, `observation`, because its numbers are names and no
    quantities. Every other space has none.

    Raises:
        ConfigError: a part that one float32 vector can't hold; one line naming it.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (_part("observation", space, 0),)
    if not isinstance(space, spaces.Dict):
        return ()
    parts: list[PartLayout] = []
    for name, inner in space.spaces.items():
        parts.append(_part(name, inner, parts[-1].stop if parts else 0))
    if not parts or parts[-1].stop == 0:
        raise ConfigError("environment.id: observation space Dict() is empty; an observation needs at least one number")
    return tuple(parts)


def _part(name: str, space: spaces.Space[Any], start: int) -> PartLayout:
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ConfigError(
            f"environment.id: part {name!r} of its observations is a {type(space).__name__}; a Dict of Box, Discrete, "
            "MultiDiscrete and MultiBinary is taken: flatten the part with a wrapper in environment.wrappers"
        )
    shape = space.shape or ()
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(shape) >= 3:
        raise ConfigError(
            f"environment.id: part {name!r} of its observations is an image {list(shape)} inside a Dict; images are "
            "taken alone: return that part only, with a wrapper in environment.wrappers"
        )
    integer = space.dtype is not None and np.dtype(space.dtype).kind != "f"
    largest: int = 0
    categories: tuple[int, ...] = ()
    if integer:
        low, largest = _range(space)
        if max(-low, largest) > LARGEST_INTEGER:
            raise ConfigError(
                f"environment.id: part {name!r} of its observations has whole numbers from {low} to {largest}, "
                f"float32 is exact up to {LARGEST_INTEGER}; give the space closer bounds or split the number"
            )
        categories = _categories(space)
    return PartLayout(name, start, start + math.prod(shape), shape, integer, largest, categories)


def _range(space: spaces.Space[Any]) -> tuple[int, int]:
    match space:
        case spaces.Discrete():
            return int(space.start), int(space.start + space.n - 1)
        case spaces.MultiDiscrete():
            return int(space.start.min()), int((space.start + space.nvec - 1).max())
        case spaces.Box() if space.low.size:
            return int(space.low.min()), int(space.high.max())
    return 0, 1


def _categories(space: spaces.Space[Any]) -> tuple[int, ...]:
    match space:
        case spaces.Discrete() if space.start >= 0:
            return (int(space.start + space.n),)
        case spaces.MultiDiscrete() if (space.start >= 0).all():
            return tuple(int(n) for n in (space.start + space.nvec).ravel())
    return ()
