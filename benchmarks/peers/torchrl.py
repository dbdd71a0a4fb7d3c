"""torchrl's prioritized buffer, in process: `python torchrl.py WORKLOAD_JSON` (see peer.py).

Needs a torch that torchrl's compiled part was built for; the buffer does not exist without it.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))  # this file is called like the package it measures
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, PrioritizedSampler, ReplayBuffer

sys.path.insert(0, str(Path(__file__).parent))
from peer import Operation, Peer, Workload, serve, timed


def make(work: Workload) -> Peer:
    """A buffer as full as `fill_seconds` let it be; `sample` returns a tensordict and an info with the indices."""
    try:
        from torchrl import _torchrl  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"the compiled part of torchrl {version('torchrl')} does not load with torch {torch.__version__}"
        ) from error
    torch.set_num_threads(1)
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(work.records),
        sampler=PrioritizedSampler(work.records, alpha=work.alpha, beta=0.4),
        batch_size=work.batch,
    )
    chunks = [
        TensorDict({name: torch.from_numpy(column) for name, column in chunk.items()}, [work.chunk])
        for chunk in work.chunks()
    ]
    pairs = cycle(zip(chunks, [torch.from_numpy(p).float() for p in work.priorities(work.chunk)], strict=True))
    new = cycle([torch.from_numpy(p).float() for p in work.priorities(work.batch)])

    def insert() -> int:
        columns, priorities = next(pairs)
        buffer.update_priority(buffer.extend(columns), priorities)
        return work.chunk

    def sample() -> int:
        batch, _ = buffer.sample(return_info=True)
        batch["reward"].sum()
        return work.batch

    def both() -> int:
        batch, info = buffer.sample(return_info=True)
        batch["reward"].sum()
        buffer.update_priority(info["index"], next(new))
        return work.batch

    timed(Operation(insert), work.fill_seconds, work.records)
    operations = {"insert": Operation(insert), "sample": Operation(sample), "cycle": Operation(both)}
    facts = {"version": version("torchrl"), "torch": torch.__version__, "transport": "in process"}
    return Peer(operations, len(buffer), facts)


serve(make)
