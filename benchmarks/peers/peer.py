"""What every peer program shares: the workload, the timing, and the conversation with `headrace bench replay`.

A peer runs in its own environment and knows nothing of headrace. It is started with one JSON argument (the workload),
fills itself, prints one line `{"ready": true, ...}`, and then answers each line `OPERATION SECONDS` on its standard
input with one line of JSON: `{"records": N, "seconds": S}`. It ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

POOL = 16


@dataclass(frozen=True)
class Workload:
    """Record: observation f32[dim], action i64, reward f32, discount f32, next_observation f32[dim]."""

    dim: int
    records: int
    batch: int
    chunk: int
    alpha: float
    fill_seconds: float
    seed: int

    def chunks(self) -> list[dict[str, np.ndarray]]:
        """Columns [chunk, ...] to insert again and again; several, so that no single one stays in the cache."""
        rng, rows = np.random.default_rng(self.seed), self.chunk
        return [
            {
                "observation": rng.standard_normal((rows, self.dim), np.float32),
                "action": rng.integers(0, 4, rows),
                "reward": rng.standard_normal(rows, np.float32),
                "discount": np.full(rows, 0.99, np.float32),
                "next_observation": rng.standard_normal((rows, self.dim), np.float32),
            }
            for _ in range(POOL)
        ]

    def priorities(self, rows: int) -> list[np.ndarray]:
        """float64[rows] above zero."""
        rng = np.random.default_rng(self.seed + 1)
        return [rng.exponential(size=rows) + 1e-3 for _ in range(POOL)]


class Operation(NamedTuple):
    """`step` handles some records and returns how many; `finish` waits until the last of them are done."""

    step: Callable[[], int]
    finish: Callable[[], None] = lambda: None


class Peer(NamedTuple):
    """A filled buffer: what it can do, how many records it holds, and what a reader should know about it."""

    operations: dict[str, Operation]
    holds: int
    facts: dict[str, Any]


def timed(operation: Operation, seconds: float, most: float = float("inf")) -> tuple[int, float]:
    """Records handled, and in how many seconds; stops at `most` records."""
    records, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds and records < most:
        records += operation.step()
    operation.finish()
    return records, time.perf_counter() - begin


def serve(make: Callable[[Workload], Peer]) -> None:
    """Fill a peer and answer until the input ends; what libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        peer = make(Workload(**json.loads(sys.argv[1])))
        print(json.dumps({"ready": True, "holds": peer.holds, **peer.facts}), file=replies)
        for line in sys.stdin:
            name, seconds = line.split()
            records, took = timed(peer.operations[name], float(seconds))
            print(json.dumps({"records": records, "seconds": took}), file=replies)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), file=replies)
