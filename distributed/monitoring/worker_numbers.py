"""What actors, learner, weight store and evaluator count: taken from the reports they make anyway."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from distributed.monitoring.exporter import Number

if TYPE_CHECKING:  # they need torch, which the weight store's process has no other use for
    from actors.evaluator import EvaluationResult
    from actors.loop import ActorReport
    from learners.loop import LearnerReport

_BRIEF = "brief"
"""Waits that were over when the report was made: nobody noted what for."""


class ActorNumbers:
    """Of a rollout actor."""

    def __init__(self) -> None:
        self._report: ActorReport | None = None
        self._episodes = 0
        self._mean_return: float | None = None
        self._blocked: dict[str, float] = defaultdict(float)
        self._overdue = 0
        self._given_up = 0

    def note(self, report: ActorReport, given_up: int) -> None:
        """Take in what it did since the last one."""
        self._report, self._given_up = report, given_up
        self._episodes += len(report.returns)
        if len(report.returns):
            self._mean_return = float(report.returns.mean())
        self._blocked[report.blocked_on or _BRIEF] += report.seconds_blocked
        self._overdue += report.overdue

    def numbers(self) -> Iterator[Number]:
        report = self._report
        if report is None:
            return
        yield Number("actor_env_steps_total", "Environment transitions over this actor's life.", report.env_steps)
        yield Number("actor_episodes_total", "Episodes that ended in this process.", self._episodes)
        yield Number("actor_return", "Mean return of the episodes that ended last.", self._mean_return)
        yield Number("actor_weights_version", "Version of the weights in use.", report.policy_version)
        text = "Transitions made with weights further behind than actors.max_weight_lag."
        yield Number("actor_overdue_transitions_total", text, self._overdue)
        text = "Seconds waited for the replay, by what was waited for when it was reported."
        yield Number("actor_blocked_seconds_total", text, dict(self._blocked), "reason")
        text = "Records of this process that a shard has acknowledged."
        yield Number("actor_acknowledged_records_total", text, report.stored)
        text = "Records of this process that a shard which lost its memory refused."
        yield Number("actor_given_up_records_total", text, self._given_up)


class LearnerNumbers:
    """Of a learner."""

    def __init__(self) -> None:
        self._report: LearnerReport | None = None
        self._loss: float | None = None
        self._waiting: dict[str, float] = defaultdict(float)
        self._published: tuple[int, int, float] = (0, 0, 0.0)

    def note(self, report: LearnerReport, published: tuple[int, int, float]) -> None:
        """Take in what it did since the last one.

        Args:
            report: its own.
            published: versions since the process began, bytes of the newest, and seconds for which all held it up.
        """
        self._report, self._published = report, published
        self._loss = report.metrics.get("loss", self._loss)
        self._waiting[report.blocked_on or _BRIEF] += report.seconds_waiting

    def numbers(self) -> Iterator[Number]:
        report = self._report
        if report is None:
            return
        yield Number("learner_updates_total", "Updates over the learner's life.", report.updates)
        text = "Updates that were skipped for values that are not finite."
        yield Number("learner_skipped_updates_total", text, report.skipped_updates)
        yield Number("learner_loss", "Mean loss of the newest updates.", self._loss)
        text = "Seconds waited for samples, by what was waited for when it was reported."
        yield Number("learner_waiting_seconds_total", text, dict(self._waiting), "reason")
        yield Number("learner_weights_version", "Newest published version.", report.weights_version)
        count, size, seconds = self._published
        yield Number("learner_published_total", "Versions published by this process.", count)
        yield Number("learner_weights_bytes", "Bytes of the newest published version.", size)
        yield Number("learner_publish_seconds_total", "Seconds that held the learner up.", seconds)


class StoreNumbers:
    """Of the weight store, which sets them itself."""

    def __init__(self) -> None:
        self.version = 0
        self.received = 0
        self.waiters = 0

    def numbers(self) -> Iterator[Number]:
        yield Number("store_weights_version", "Newest version it holds; 0: none.", self.version)
        yield Number("store_received_total", "Versions received by this process.", self.received)
        yield Number("store_waiters", "Requests for a newer version that wait now.", self.waiters)


class EvaluatorNumbers:
    """Of the evaluator."""

    def __init__(self) -> None:
        self._evaluations = 0
        self._episodes = 0
        self._seconds = 0.0
        self._version = 0
        self._mean: float | None = None

    def note(self, version: int, result: EvaluationResult, seconds: float) -> None:
        """Take in a finished evaluation."""
        self._evaluations += 1
        self._episodes += result.episodes
        self._seconds += seconds
        self._version, self._mean = version, result.mean

    def numbers(self) -> Iterator[Number]:
        yield Number("evaluator_evaluations_total", "Evaluations made by this process.", self._evaluations)
        yield Number("evaluator_episodes_total", "Episodes they took.", self._episodes)
        yield Number("evaluator_seconds_total", "Seconds they took.", self._seconds)
        yield Number("evaluator_weights_version", "Version that was evaluated last.", self._version)
        yield Number("evaluator_return", "Mean return of the newest evaluation.", self._mean)
