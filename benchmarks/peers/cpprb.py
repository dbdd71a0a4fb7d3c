"""cpprb's prioritized buffer, in process: `python cpprb.py WORKLOAD_JSON` (see peer.py)."""

from __future__ import annotations

import sys
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))  # this file is called like the package it measures
import numpy as np
from cpprb import PrioritizedReplayBuffer

sys.path.insert(0, str(Path(__file__).parent))
from peer import Operation, Peer, Workload, serve, timed


def make(work: Workload) -> Peer:
    """A full buffer; `sample` returns columns, importance weights and indexes."""
    fields = {
        "observation": {"shape": work.dim, "dtype": np.float32},
        "action": {"dtype": np.int64},
        "reward": {"dtype": np.float32},
        "discount": {"dtype": np.float32},
        "next_observation": {"shape": work.dim, "dtype": np.float32},
    }
    buffer = PrioritizedReplayBuffer(work.records, fields, alpha=work.alpha)
    pairs = cycle(zip(work.chunks(), work.priorities(work.chunk), strict=True))
    new = cycle(work.priorities(work.batch))

    def insert() -> int:
        columns, priorities = next(pairs)
        buffer.add(**columns, priorities=priorities)
        return work.chunk

    def sample() -> int:
        batch = buffer.sample(work.batch, beta=0.4)
        batch["reward"].sum()
        return work.batch

    def both() -> int:
        batch = buffer.sample(work.batch, beta=0.4)
        batch["reward"].sum()
        buffer.update_priorities(batch["indexes"], next(new))
        return work.batch

    timed(Operation(insert), work.fill_seconds, work.records)
    operations = {"insert": Operation(insert), "sample": Operation(sample), "cycle": Operation(both)}
    return Peer(operations, buffer.get_stored_size(), {"version": version("cpprb"), "transport": "in process"})


serve(make)
