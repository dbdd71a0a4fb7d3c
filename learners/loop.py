"""The learner's loop: sample, update, give priorities back, publish weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from learners.checkpoint import save_batch
from learners.learner import Learner, StepOutput
from learners.weights import WeightSink, WeightSnapshot
from replay_server.errors import Diverged, ReplayTimeout, Unavailable
from replay_server.replay import Replay

BATCH_FILE = "skipped_batch.safetensors"


@dataclass(frozen=True)
class LearnerReport:
    """What a learner did since its last report.

    Attributes:
        updates: updates over the learner's life.
        weights_version: newest published version.
        metrics: means over the updates since the last report; empty when there were none.
        seconds_waiting: time spent waiting for samples since the last report.
        blocked_on: what the last turn waited for in vain, or None.
        skipped_updates: those of `updates` that were skipped for values that are not finite.
    """

    updates: int
    weights_version: int
    metrics: Mapping[str, float]
    seconds_waiting: float
    blocked_on: str | None
    skipped_updates: int = 0


@dataclass(frozen=True)
class LearnerPace:
    """How much a learner makes of the records, and what its schedules run on.

    Attributes:
        batch_size: records per update.
        publish_every_updates: updates between two published versions.
        updates_per_batch: updates made from each batch.
        inserted_before: records the replay held of others when this run began; schedules do not count them.
        offline: nobody inserts: schedules run on the updates made.
    """

    batch_size: int
    publish_every_updates: int
    updates_per_batch: int = 1
    inserted_before: int = 0
    offline: bool = False


class LearnerLoop:
    """One `step` is one turn: the updates from one batch, or a wait that passed its deadline.

    A turn a call, not a generator, so that a runtime can checkpoint, report or stop between any two turns.

    Args:
        learner: does the updates.
        replay: gives batches, takes priorities.
        sink: takes weights.
        pace: sizes and schedules.
        clock: monotonic seconds.
        logs: directory for the batch of the last of too many skipped updates; None: it is not kept.
    """

    def __init__(
        self,
        learner: Learner,
        replay: Replay,
        sink: WeightSink,
        *,
        pace: LearnerPace,
        clock: Callable[[], float],
        logs: Path | None = None,
    ) -> None:
        self._pace = pace
        self._logs = logs
        self._learner = learner
        self._replay = replay
        self._sink = sink
        self._clock = clock
        self._version = 0
        self._consumed = False
        self._seconds_waiting = 0.0
        self._blocked_on: str | None = None

    def begin(self, published: WeightSnapshot | None) -> None:
        """Publish the first policy: the one that was published last before a checkpoint, or a fresh one."""
        if published is None:
            self.publish()
        else:
            self._sink.publish(published)
            self._version = published.version

    def drain(self) -> None:
        """Have every update made so far finished, and its priorities on their way."""
        with self._bad_batch_kept():
            self._give_back(self._learner.drain())

    def publish(self) -> WeightSnapshot:
        """Publish the weights as they are now."""
        snapshot = self._learner.snapshot()
        self._sink.publish(snapshot)
        self._version = snapshot.version
        return snapshot

    @property
    def version(self) -> int:
        """The newest published."""
        return self._version

    def step(self, timeout_s: float) -> bool:
        """One turn; False when no batch came within `timeout_s` seconds."""
        begin = self._clock()
        try:
            batch = self._replay.sample(self._pace.batch_size, timeout_s=timeout_s)
        except ReplayTimeout as timeout:
            self._blocked_on = timeout.blocked_on
            return False
        except Unavailable:  # no shard answers; for how long to wait is the runtime's to say
            self._blocked_on = "shard"
            return False
        finally:
            if timeout_s > 0.0:  # else nothing is ever waited for: the time is the sampling's own
                self._seconds_waiting += self._clock() - begin
        self._blocked_on = None
        if self._pace.offline:
            batch = replace(batch, inserted=self._learner.updates)
        elif self._pace.inserted_before:
            batch = replace(batch, inserted=max(batch.inserted - self._pace.inserted_before, 0))
        self._consumed = batch.consumed
        for _ in range(self._pace.updates_per_batch):
            with self._bad_batch_kept():
                self._give_back(self._learner.step(batch))
            if self._learner.updates % self._pace.publish_every_updates == 0:
                self.publish()
        return True

    def report(self) -> LearnerReport:
        """What happened since the last report."""
        report = LearnerReport(
            updates=self._learner.updates,
            weights_version=self._version,
            metrics=self._learner.take_metrics(),
            seconds_waiting=self._seconds_waiting,
            blocked_on=self._blocked_on,
            skipped_updates=self._learner.skipped_updates,
        )
        self._seconds_waiting = 0.0
        return report

    @contextmanager
    def _bad_batch_kept(self) -> Iterator[None]:
        """Too many skipped updates end the run; the batch of the last one is what somebody will want to look at."""
        try:
            yield
        except Diverged as error:
            if self._logs is None or self._learner.bad_batch is None:
                raise
            path = self._logs / BATCH_FILE
            save_batch(self._learner.bad_batch, path)
            raise Diverged(f"{error}; its batch is in {path}") from error

    def _give_back(self, output: StepOutput | None) -> None:
        if output is not None and not self._consumed:  # records of a queue are gone
            self._replay.update_priorities(output.keys, output.priorities)
