"""tianshou's prioritized buffer, in process: `python tianshou.py WORKLOAD_JSON` (see peer.py).

Its transitions have `terminated` and `truncated` where ours have `discount`. One buffer adds one transition a call; the
vector buffer, which collectors use, adds one for each of its parts, so that is what is filled and measured.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))  # this file is called like the package it measures
import numpy as np
import torch
from tianshou.data import Batch, PrioritizedVectorReplayBuffer

sys.path.insert(0, str(Path(__file__).parent))
from peer import Operation, Peer, Workload, serve, timed

PARTS = 512


def make(work: Workload) -> Peer:
    """A buffer of 512 parts, as full as `fill_seconds` let it be."""
    torch.set_num_threads(1)
    buffer = PrioritizedVectorReplayBuffer(work.records, min(PARTS, work.records), alpha=work.alpha, beta=0.4)
    rows = min(PARTS, work.records, work.chunk)
    parts = np.arange(rows)
    batches = cycle(
        [
            Batch(
                obs=chunk["observation"][:rows],
                act=chunk["action"][:rows],
                rew=chunk["reward"][:rows],
                terminated=chunk["discount"][:rows] == 0.0,
                truncated=np.zeros(rows, bool),
                obs_next=chunk["next_observation"][:rows],
                info=Batch(),
            )
            for chunk in work.chunks()
        ]
    )
    new = cycle(work.priorities(work.batch))

    def insert() -> int:
        buffer.add(next(batches), buffer_ids=parts)
        return rows

    def sample() -> int:
        batch, _ = buffer.sample(work.batch)
        batch.rew.sum()
        return work.batch

    def both() -> int:
        batch, indices = buffer.sample(work.batch)
        batch.rew.sum()
        buffer.update_weight(indices, next(new))
        return work.batch

    timed(Operation(insert), work.fill_seconds, work.records)
    everything = buffer.sample_indices(0)
    for start in range(0, len(everything), work.batch):  # priorities that differ, so that draws go everywhere
        some = everything[start : start + work.batch]
        buffer.update_weight(some, next(new)[: len(some)])
    operations = {"insert": Operation(insert), "sample": Operation(sample), "cycle": Operation(both)}
    facts = {"version": version("tianshou"), "torch": torch.__version__, "transport": "in process"}
    return Peer(operations, len(buffer), facts)


serve(make)
