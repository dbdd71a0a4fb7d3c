"""A learner of one or two processes to be timed: this one and a child, each with its half of every batch."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any

import torch

from distributed.bench.updates import learner_and_batches
from learners.loop import LearnerLoop, LearnerPace
from learners.replica_group import MeetingPlace, Membership, ReplicaGroup
from learners.replicas import ALONE, Replicas
from learners.weights import WeightSlot
from replay_server.batches import SampleBatch

_COUNT = 2
_LOOPBACK = "127.0.0.1"
_START_SECONDS, _ANSWER_SECONDS = 120.0, 60.0
_NEVER = 1 << 60


class Whole:
    """One process with whole batches.

    Args:
        kind: of learner.
        units: of each of its two layers.
        meeting: where the first of two replicas meets the other; None: it is alone.
    """

    def __init__(self, kind: str, units: int, meeting: str | None = None) -> None:
        self._loop = _loop(kind, units, meeting, 0)
        self._updates, self._processor_s = 0, 0.0

    def measure(self, seconds: float) -> float:
        """Updates a second, after a warm-up of a fifth of the time."""
        self._work(seconds / 5)
        before, busy, begin = self._loop.report().updates, time.process_time(), time.perf_counter()
        self._work(seconds)
        updates, took = self._loop.report().updates - before, time.perf_counter() - begin
        self._processor_s += time.process_time() - busy
        self._updates += updates
        return updates / took

    @property
    def processor_ms(self) -> float:
        """Milliseconds of a processor that this process used for an update, exchange and waking up included."""
        return 1e3 * self._processor_s / max(self._updates, 1)

    def _work(self, seconds: float) -> None:
        self._loop.work(seconds, 0.0)


class Halves(Whole):
    """Two replicas over gloo and loopback. A context manager: ends the child."""

    def __init__(self, kind: str, units: int) -> None:
        self._meeting = MeetingPlace(_LOOPBACK)
        spawning = multiprocessing.get_context("spawn")
        self._commands, theirs = spawning.Pipe()
        arguments = (kind, units, self._meeting.address, theirs)
        self._child = spawning.Process(target=_follow, args=arguments, daemon=True)
        self._child.start()
        super().__init__(kind, units, self._meeting.address)

    def __enter__(self) -> Halves:
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.close()
        self._child.join(_ANSWER_SECONDS)
        self._child.kill()

    def _work(self, seconds: float) -> None:
        self._commands.send(seconds)
        super()._work(seconds)


class _Pool:
    """A replica's part of each of some batches, in turn."""

    def __init__(self, batches: list[SampleBatch], replicas: Replicas) -> None:
        size = len(batches[0]) // replicas.count
        rows = slice(replicas.rank * size, (replicas.rank + 1) * size)
        self._halves = cycle(
            replace(b, records=b.records[rows], keys=b.keys[rows], probabilities=b.probabilities[rows]) for b in batches
        )

    def sample(self, batch_size: int, timeout_s: float) -> SampleBatch:
        return next(self._halves)

    def update_priorities(self, keys: Any, priorities: Any) -> None:
        pass


def _loop(kind: str, units: int, meeting: str | None, rank: int) -> LearnerLoop:
    torch.set_num_threads(1)
    learner, batches = learner_and_batches(kind, units)
    replicas: Replicas = ALONE
    if meeting is not None:
        replicas = ReplicaGroup(Membership(rank, _COUNT, meeting, _LOOPBACK, _START_SECONDS, _ANSWER_SECONDS), "cpu")
    learner.join(replicas)
    replay: Any = _Pool(batches, replicas)
    pace = LearnerPace(len(batches[0]) // replicas.count, publish_every_updates=_NEVER)
    return LearnerLoop(learner, replay, WeightSlot(), pace=pace, clock=time.monotonic, replicas=replicas)


def _follow(kind: str, units: int, meeting: str, commands: Connection) -> None:
    """The child: works whenever the first one does."""
    loop = _loop(kind, units, meeting, 1)
    try:
        while True:
            loop.work(commands.recv(), 0.0)
    except EOFError:
        return
