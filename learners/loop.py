"""The learner's loop: sample, update, give priorities back, publish weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from learners.checkpoint import save_batch
from learners.learner import Learner, StepOutput
from learners.replicas import ALONE, Replicas
from learners.weights import WeightSink, WeightSnapshot
from replay_server.batches import SampleBatch
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
        batch_size: records this learner asks for per update.
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
        replicas: that the learner has joined; their loops make the same turns, each with its part of the batch.
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
        replicas: Replicas = ALONE,
    ) -> None:
        self._pace = pace
        self._logs = logs
        self._learner = learner
        self._replay = replay
        self._sink = sink
        self._clock = clock
        self._replicas = replicas
        self._held: SampleBatch | None = None
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
        """Publish the weights as they are now, having seen that all replicas have the same.

        Raises:
            Diverged: they have not.
        """
        snapshot = self._learner.snapshot()
        self._replicas.check_same([snapshot.blob])
        self._sink.publish(snapshot)
        self._version = snapshot.version
        return snapshot

    @property
    def version(self) -> int:
        """The newest published."""
        return self._version

    def work(self, seconds: float, turn_s: float) -> None:
        """Turns for so long, as the first replica's clock has it, each waiting for a batch for `turn_s` at most."""
        deadline, more = self._clock() + seconds, True
        while more:
            _, more = self._turn(turn_s, more=self._clock() < deadline)

    def step(self, timeout_s: float) -> bool:
        """One turn; False when no batch came within `timeout_s` seconds."""
        return self._turn(timeout_s, more=False)[0]

    def _turn(self, timeout_s: float, *, more: bool) -> tuple[bool, bool]:
        """Whether updates were made, and whether another turn follows."""
        if self._held is None:
            self._held = self._sample(timeout_s)
        agreed = self._replicas.agree(self._held, more=more)
        if agreed.batch is None:  # what is held is for the next turn
            return False, agreed.more
        self._held = None
        self._consumed = agreed.batch.consumed
        for _ in range(self._pace.updates_per_batch):
            with self._bad_batch_kept():
                self._give_back(self._learner.step(agreed.batch))
            if self._learner.updates % self._pace.publish_every_updates == 0:
                self.publish()
        return True, agreed.more

    def _sample(self, timeout_s: float) -> SampleBatch | None:
        begin = self._clock()
        try:
            batch = self._replay.sample(self._pace.batch_size, timeout_s=timeout_s)
        except ReplayTimeout as timeout:
            self._blocked_on = timeout.blocked_on
            return None
        except Unavailable:  # no shard answers; for how long to wait is the runtime's to say
            self._blocked_on = "shard"
            return None
        finally:
            if timeout_s > 0.0:  # else nothing is ever waited for: the time is the sampling's own
                self._seconds_waiting += self._clock() - begin
        self._blocked_on = None
        if self._pace.offline:
            batch = replace(batch, inserted=self._learner.updates)
        elif self._pace.inserted_before:
            batch = replace(batch, inserted=max(batch.inserted - self._pace.inserted_before, 0))
        return batch

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
            rank = self._replicas.rank
            path = self._logs / (f"{rank}-{BATCH_FILE}" if rank else BATCH_FILE)
            save_batch(self._learner.bad_batch, path)
            raise Diverged(f"{error}; its batch is in {path}") from error

    def _give_back(self, output: StepOutput | None) -> None:
        if output is not None and not self._consumed:  # records of a queue are gone
            self._replay.update_priorities(output.keys, output.priorities)
