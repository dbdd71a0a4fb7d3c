"""The records of the benchmark: one step of a control task, or of a game seen as images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.replay import Rows
from replay_server.specs import Field, RecordSpec

BATCH = 512
ALPHA = 0.6
_POOL_BYTES = 8 << 20
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Workload:
    """Records of one layout: how many, and how they are handed over.

    Args:
        name: as it stands in the names of rows: `8`, `128`, `images`.
        records: capacity of the replay, which is filled.
        seed: of all columns and priorities.
    """

    name: str
    records: int
    seed: int = 0

    @cached_property
    def spec(self) -> RecordSpec:
        """observation, action i64, reward f32, discount f32, next_observation."""
        image = self.name == "images"
        shape, dtype = ((4, 84, 84), "uint8") if image else ((int(self.name),), "float32")
        return RecordSpec(
            (
                Field("observation", dtype, shape),
                Field("action", "int64"),
                Field("reward", "float32"),
                Field("discount", "float32"),
                Field("next_observation", dtype, shape),
            )
        )

    @property
    def chunk(self) -> int:
        """Records of one append: 4096, or what fits 4 MiB."""
        return min(4096, max(_CHUNK_BYTES // self.spec.record_size, 1), self.records)

    @cached_property
    def chunks(self) -> list[dict[str, NDArray[Any]]]:
        """Several chunks of random columns, 8 MiB together, so that none is read from a cache all the time."""
        rng = np.random.default_rng(self.seed)
        count = max(_POOL_BYTES // (self.chunk * self.spec.record_size), 2)
        return [{f.name: _column(rng, f, self.chunk) for f in self.spec.fields} for _ in range(count)]

    def pairs(self) -> cycle[tuple[Rows, NDArray[np.float64]]]:
        """Endless chunks, each with random priorities."""
        rng = np.random.default_rng(self.seed + 1)
        return cycle([(chunk, random_priorities(rng, self.chunk)) for chunk in self.chunks])

    def priorities(self) -> cycle[NDArray[np.float64]]:
        """Endless random priorities of a batch."""
        rng = np.random.default_rng(self.seed + 2)
        return cycle([random_priorities(rng, BATCH) for _ in range(64)])


def random_priorities(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """float64[rows] like absolute TD errors: mostly small, some large, none zero."""
    return rng.exponential(size=rows) + 1e-3


def _column(rng: np.random.Generator, field: Field, rows: int) -> NDArray[Any]:
    shape = (rows, *field.shape)
    if field.numpy_dtype.kind == "f":
        return rng.standard_normal(shape, np.float32)
    return rng.integers(0, 4 if field.name == "action" else 256, shape, dtype=field.numpy_dtype)
