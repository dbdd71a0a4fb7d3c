"""Replicas of a learner in threads of this process, over gloo and loopback, and one learner to compare them with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kit.learning import batch_of, random_columns, spec_of
from learners.gradient_learner import GradientLearner
from learners.loop import LearnerLoop, LearnerPace
from learners.replica_group import MeetingPlace, Membership, ReplicaGroup
from learners.replicas import ALONE, Replicas
from learners.task import Task
from learners.weights import WeightSlot
from replay_server.batches import SampleBatch
from replay_server.errors import ReplayTimeout


def in_replicas(count: int, work: Callable[[ReplicaGroup], Any], seconds: float = 20.0) -> list[Any]:
    """What `work` returned, or the exception it raised, in each of so many replicas, by rank."""
    meeting, results = MeetingPlace("127.0.0.1"), [None] * count

    def take_part(rank: int) -> None:
        try:
            results[rank] = work(ReplicaGroup(membership(meeting, rank, count, seconds), "cpu"))
        except Exception as error:
            results[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=take_part, args=(rank,), daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * seconds)
        assert not thread.is_alive(), "a replica never came to an end"
    return results


def membership(meeting: MeetingPlace, rank: int, count: int, seconds: float = 20.0) -> Membership:
    """A place among replicas of this machine."""
    return Membership(rank, count, meeting.address, "127.0.0.1", meet_seconds=seconds, answer_seconds=seconds)


def random_batches(config: Any, task: Task, count: int, size: int = 16) -> list[SampleBatch]:
    """Batches of unequal probabilities with records, discounts and positions in the run of all kinds."""
    rng, spec, made = np.random.default_rng(100), spec_of(config, task), []
    for number in range(count):
        probabilities = rng.uniform(0.2, 1.8, size) / size
        columns = random_columns(config, task, rng, size)
        made.append(batch_of(spec, columns, probabilities, inserted=50 * number))
    return made


def part(batch: SampleBatch, rank: int, count: int) -> SampleBatch:
    """Rows that a replica gets; the ones after the first hear later of what was inserted."""
    rows = np.array_split(np.arange(len(batch)), count)[rank]
    records, keys, probabilities = batch.records[rows].copy(), batch.keys[rows], batch.probabilities[rows]
    late = max(batch.inserted - 7 * rank, 0)
    return replace(batch, records=records, keys=keys, probabilities=probabilities, inserted=late)


@dataclass
class Learnt:
    """What came of all batches: state, priorities and metrics after every update, and updates skipped."""

    state: dict[str, np.ndarray]
    priorities: list[np.ndarray] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0


class Feed:
    """A replay that gives these batches in turn, and now and then none in time."""

    def __init__(self, batches: Iterator[SampleBatch], rng: np.random.Generator, late: float) -> None:
        self._batches, self._rng, self._late = batches, rng, late
        self.priorities: list[np.ndarray] = []

    def sample(self, batch_size: int, timeout_s: float) -> SampleBatch:
        if self._rng.random() < self._late:
            raise ReplayTimeout("nothing yet", "inserts")
        return next(self._batches)

    def update_priorities(self, keys: Any, priorities: np.ndarray) -> None:
        self.priorities.append(priorities)


def learnt(
    config: Any,
    task: Task,
    batches: list[SampleBatch],
    replicas: Replicas = ALONE,
    *,
    deferred: bool = False,
    late: float = 0.3,
) -> Learnt:
    """What a learner, or this replica of one, makes of its rows of the batches."""
    made = config.make_learner(task, spec_of(config, task), seed=0, device="cpu")
    learner = GradientLearner(config, made._rule, spec_of(config, task), "cpu", deferred=True) if deferred else made
    learner.join(replicas)
    feed = Feed(
        (part(batch, replicas.rank, replicas.count) for batch in batches),
        np.random.default_rng(100 + replicas.rank),
        late if replicas.count > 1 else 0.0,
    )
    pace = LearnerPace(batch_size=len(batches[0]) // replicas.count, publish_every_updates=10)
    replay: Any = feed
    loop = LearnerLoop(learner, replay, WeightSlot(), pace=pace, clock=lambda: 0.0, replicas=replicas)
    found = Learnt({})
    while learner.updates < len(batches):
        if loop.step(0.0):
            found.metrics.append(learner.take_metrics())
    loop.drain()
    replicas.check_same(tensor.numpy() for tensor in learner.state_dict().values())
    found.state = {name: tensor.numpy() for name, tensor in learner.state_dict().items()}
    found.priorities, found.skipped = feed.priorities, learner.skipped_updates
    return found
