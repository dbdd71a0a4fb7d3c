"""The learner's loop: sample, update, give priorities back, publish weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from learners.learner import Learner, StepOutput
from learners.weights import WeightSink, WeightSnapshot
from replay_server.errors import ReplayTimeout
from replay_server.replay import Replay


@dataclass(frozen=True)
class LearnerReport:
    """What a learner did since its last report.

    Attributes:
        updates: updates over the learner's life.
        weights_version: newest published version.
        metrics: means over the updates since the last report; empty when there were none.
        seconds_waiting: time spent waiting for samples since the last report.
        blocked_on: what the last turn waited for in vain, or None.
    """

    updates: int
    weights_version: int
    metrics: Mapping[str, float]
    seconds_waiting: float
    blocked_on: str | None


class LearnerLoop:
    """One `step` is one turn: an update, or a wait that passed its deadline.

    A turn a call, not a generator, so that a runtime can checkpoint, report or stop between any two turns.

    Args:
        learner: does the updates.
        replay: gives batches, takes priorities.
        sink: takes weights.
        batch_size: records per update.
        publish_every_updates: updates between two published versions.
        clock: monotonic seconds.
        inserted_before: records the replay held of others when this run began; schedules do not count them.
        offline: nobody inserts: schedules run on the updates made.
    """

    def __init__(
        self,
        learner: Learner,
        replay: Replay,
        sink: WeightSink,
        *,
        batch_size: int,
        publish_every_updates: int,
        clock: Callable[[], float],
        inserted_before: int = 0,
        offline: bool = False,
    ) -> None:
        self._offline = offline
        self._inserted_before = inserted_before
        self._learner = learner
        self._replay = replay
        self._sink = sink
        self._batch_size = batch_size
        self._publish_every_updates = publish_every_updates
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
        self._give_back(self._learner.drain())

    def publish(self) -> WeightSnapshot:
        """Publish the weights as they are now."""
        snapshot = self._learner.snapshot()
        self._sink.publish(snapshot)
        self._version = snapshot.version
        return snapshot

    def step(self, timeout_s: float) -> bool:
        """One turn; False when no batch came within `timeout_s` seconds."""
        begin = self._clock()
        try:
            batch = self._replay.sample(self._batch_size, timeout_s=timeout_s)
        except ReplayTimeout as timeout:
            self._blocked_on = timeout.blocked_on
            return False
        finally:
            if timeout_s > 0.0:  # else nothing is ever waited for: the time is the sampling's own
                self._seconds_waiting += self._clock() - begin
        self._blocked_on = None
        if self._offline:
            batch = replace(batch, inserted=self._learner.updates)
        elif self._inserted_before:
            batch = replace(batch, inserted=max(batch.inserted - self._inserted_before, 0))
        self._consumed = batch.consumed
        self._give_back(self._learner.step(batch))
        if self._learner.updates % self._publish_every_updates == 0:
            self.publish()
        return True

    def report(self) -> LearnerReport:
        """What happened since the last report."""
        updates, metrics = self._learner.updates, self._learner.take_metrics()
        report = LearnerReport(updates, self._version, metrics, self._seconds_waiting, self._blocked_on)
        self._seconds_waiting = 0.0
        return report

    def _give_back(self, output: StepOutput | None) -> None:
        if output is not None and not self._consumed:  # records of a queue are gone
            self._replay.update_priorities(output.keys, output.priorities)
