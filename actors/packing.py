"""From what an environment observes to arrays of one dtype and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actors.layouts import LARGEST_INTEGER, observation_layout, observation_parts
from replay_server.errors import EnvironmentFault


class Packer:
    """Copies observations into arrays in the layout of `observation_layout`; those of a Dict into one float32 vector.

    Args:
        space: space of one observation.
        name: what errors call the environment.

    Raises:
        ConfigError: the space can't be stored.
    """

    def __init__(self, space: spaces.Space[Any], name: str) -> None:
        dtype, self.shape = observation_layout(space)
        self.dtype = np.dtype(dtype)
        self._name = name
        self._parts = observation_parts(space) if isinstance(space, spaces.Dict) else ()

    def batch(self, raw: Any, size: int, source: str) -> NDArray[Any]:
        """Observations of `size` environments as a new array [size, *shape].

        Args:
            raw: an array, or a Mapping of arrays for a Dict space.
            size: environments.
            source: what errors say it came from.

        Raises:
            EnvironmentFault: a part is missing, or has another shape than the space says; NaN, Inf or a whole number
                that float32 can't hold.
        """
        if self._parts:
            packed = self._packed(raw, (size,), source)
        else:
            packed = np.array(raw, dtype=self.dtype)  # a copy: the environment may write into its buffer again
            self._check_shape(packed, (size, *self.shape), f"{source} returned observations")
        self._check_finite(packed, "observation")
        return packed

    def final(self, raw: Any, ended: NDArray[np.bool_], seen: NDArray[Any]) -> NDArray[Any]:
        """A copy of `seen` [B, *shape] with the final observations in the rows of `ended` bool[B].

        Args:
            raw: B observations, None where nothing ended (Gymnasium's own form); or, for a Dict space, a Mapping of
                arrays [B, ...].
            ended: rows to take.
            seen: what the other rows keep.

        Raises:
            EnvironmentFault: a row is missing or broken.
        """
        source = "info['final_obs']"
        rows = np.flatnonzero(ended)
        count = 0 if raw is None else len(ended) if self._parts and isinstance(raw, Mapping) else len(raw)
        if count != len(ended):
            raise EnvironmentFault(
                f"environment {self._name}: SAME_STEP autoreset without {source} of {len(ended)} rows; "
                "return the final observations there, or declare another autoreset mode"
            )
        successor = seen.copy()
        if isinstance(raw, Mapping):
            successor[rows] = self._packed(raw, (len(ended),), source)[rows]
        else:
            for row in map(int, rows):
                successor[row] = self._one(raw, row, source)
        self._check_finite(successor, "final observation")
        return successor

    def _one(self, raw: Sequence[Any], row: int, source: str) -> NDArray[Any]:
        value = raw[row]
        if value is None:
            raise EnvironmentFault(
                f"environment {self._name}, index {row}: {source} has nothing, the space says {self.shape}"
            )
        if self._parts:
            return self._packed(value, (), f"index {row} of {source}")
        one = np.asarray(value)
        self._check_shape(one, self.shape, f"index {row} of {source}")
        return one

    def _packed(self, raw: Any, lead: tuple[int, ...], source: str) -> NDArray[np.float32]:
        """[*lead, size] of a Mapping of arrays [*lead, ...]."""
        packed = np.empty((*lead, *self.shape), np.float32)
        for part in self._parts:
            if not isinstance(raw, Mapping) or part.name not in raw:
                raise EnvironmentFault(
                    f"environment {self._name}: {source} has no part {part.name!r}, the space says it is there"
                )
            value = np.asarray(raw[part.name])
            if value.shape != (*lead, *part.shape):
                raise EnvironmentFault(
                    f"environment {self._name}: part {part.name!r} of {source} has shape {value.shape}, "
                    f"the space says {(*lead, *part.shape)}"
                )
            if part.integer and value.size and np.abs(value).max() > LARGEST_INTEGER:
                raise EnvironmentFault(
                    f"environment {self._name}: part {part.name!r} of {source} has a whole number beyond "
                    f"{LARGEST_INTEGER}, the space says at most {part.largest}"
                )
            packed[..., part.start : part.stop] = value.reshape(*lead, -1)
        return packed

    def _check_shape(self, array: NDArray[Any], expected: tuple[int, ...], source: str) -> None:
        if array.shape != expected:
            raise EnvironmentFault(
                f"environment {self._name}: {source} of shape {array.shape}, the space says {expected}"
            )

    def _check_finite(self, array: NDArray[Any], what: str) -> None:
        if array.dtype.kind != "f" or np.isfinite(array).all():
            return
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        raise EnvironmentFault(f"environment {self._name}, index {bad[0]}: {what} is NaN or infinite")
