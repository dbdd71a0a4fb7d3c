"""Counts and averages of a run: what metrics rows, the live view and `result.json` are made of."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from actors.loop import ActorReport
from distributed.runtime import Progress
from learners.loop import LearnerReport

_MOST_LAG = 1_000  # further behind counts as this in the median


class Tally:
    """Sums since the last row (cleared by `row`) and totals over the run (kept by checkpoints).

    Args:
        actor_env_steps: transitions each actor made before; empty for a run without actors.
        state: totals of a checkpoint.
        seconds: of training so far.
    """

    def __init__(self, actor_env_steps: list[int], state: dict[str, Any] | None = None, seconds: float = 0.0) -> None:
        self.actor_env_steps = actor_env_steps
        self.updates = 0
        self.skipped_updates = 0
        self.overdue_transitions = 0
        self.weights_version = 0
        self.staleness = [0.0, 0.0, 0.0]  # sum, count, maximum
        self._lag_counts: Counter[int] = Counter()
        if state is not None:
            self.updates, self.weights_version = state["updates"], state["weights_version"]
            self.skipped_updates = state["skipped_updates"]
            self.overdue_transitions = state["overdue_transitions"]
            self.staleness = list(state["staleness"])
            self._lag_counts.update({int(lag): count for lag, count in state["lags"].items()})
        self.recent_return: float | None = None
        self._clear(seconds)

    @property
    def env_steps(self) -> int:
        """The run's clock: environment transitions of all actors, or learner updates where there are none."""
        return sum(self.actor_env_steps) if self.actor_env_steps else self.updates

    @property
    def offline(self) -> bool:
        """Whether there are no actors."""
        return not self.actor_env_steps

    @property
    def blocked_on(self) -> dict[str, str]:
        """Who -> what it has waited for longest since the last row."""
        return {who: max(waits, key=waits.__getitem__) for who, waits in self._waits.items() if waits}

    @property
    def median_staleness(self) -> int | None:
        """Versions that an actor was behind in the middle one of its reports, the lower of two; None without any."""
        half, seen = (sum(self._lag_counts.values()) + 1) // 2, 0
        for lag, count in sorted(self._lag_counts.items()):
            seen += count
            if seen >= half:
                return lag
        return None

    def state(self) -> dict[str, Any]:
        """Totals, for a checkpoint's manifest."""
        return {
            "updates": self.updates,
            "skipped_updates": self.skipped_updates,
            "overdue_transitions": self.overdue_transitions,
            "weights_version": self.weights_version,
            "staleness": self.staleness,
            "lags": {str(lag): count for lag, count in sorted(self._lag_counts.items())},
        }

    def add(self, progress: Progress) -> None:
        """Take in what happened."""
        for learner_report in progress.learner:
            self._add_learner(learner_report)
        for index, report in progress.actors.items():
            self._add_actor(index, report)

    def _add_learner(self, report: LearnerReport) -> None:
        if report.updates < self.updates:  # a restarted learner counts on from its checkpoint
            self.updates = self._updates_before = report.updates
        count = report.updates - self.updates
        for name, mean in report.metrics.items():
            self._metrics[name] += mean * count
            self._metric_updates[name] += count
        self.skipped_updates = report.skipped_updates
        self.updates, self.weights_version = report.updates, report.weights_version
        self._waiting += report.seconds_waiting
        if report.blocked_on is not None:
            self._waits["learner"][report.blocked_on] += report.seconds_waiting

    def _add_actor(self, index: int, report: ActorReport) -> None:
        self.actor_env_steps[index] = report.env_steps
        self._returns.append(report.returns)
        self._lengths.append(report.lengths)
        self._blocked += report.seconds_blocked
        self.overdue_transitions += report.overdue
        if report.blocked_on is not None:
            self._waits["actors"][report.blocked_on] += report.seconds_blocked
        if report.policy_version:
            lag = float(max(self.weights_version - report.policy_version, 0))
            self.staleness = [self.staleness[0] + lag, self.staleness[1] + 1, max(self.staleness[2], lag)]
            self._lags.append(lag)
            self._lag_counts[min(int(lag), _MOST_LAG)] += 1

    def row(self, seconds: float) -> dict[str, Any]:
        """One row of metrics since the last one.

        Args:
            seconds: of training so far.
        """
        elapsed = max(seconds - self._since, 1e-9)
        returns, lengths = np.concatenate([*self._returns, []]), np.concatenate([*self._lengths, []])
        row: dict[str, Any] = {"env_steps": self.env_steps, "updates": self.updates, "offline": self.offline}
        row["skipped_updates"] = self.skipped_updates
        row["weights_version"] = self.weights_version
        row["staleness"] = float(np.mean(self._lags)) if self._lags else None
        row["overdue_transitions"] = self.overdue_transitions
        row["episodes"] = len(returns)
        row["train_return"] = float(returns.mean()) if len(returns) else None
        row["train_length"] = float(lengths.mean()) if len(lengths) else None
        row["learner"] = {name: total / max(self._metric_updates[name], 1) for name, total in self._metrics.items()}
        row["time"] = {
            "seconds": seconds,
            "env_steps_per_second": (self.env_steps - self._env_steps_before) / elapsed,
            "updates_per_second": (self.updates - self._updates_before) / elapsed,
            "actors_blocked": self._blocked / elapsed / max(len(self.actor_env_steps), 1),
            "learner_waiting": self._waiting / elapsed,
            "blocked_on": self.blocked_on,
        }
        if len(returns):
            self.recent_return = row["train_return"]
        self._clear(seconds)
        return row

    def _clear(self, seconds: float) -> None:
        self._since = seconds
        self._env_steps_before = self.env_steps
        self._updates_before = self.updates
        self._metrics: dict[str, float] = defaultdict(float)
        self._metric_updates: dict[str, int] = defaultdict(int)
        self._returns: list[Any] = []
        self._lengths: list[Any] = []
        self._lags: list[float] = []
        self._blocked = 0.0
        self._waiting = 0.0
        self._waits: dict[str, dict[str, float]] = {"actors": defaultdict(float), "learner": defaultdict(float)}


def bound_by(row: dict[str, Any]) -> str:
    """The stage that bounds the run: the one the others wait for.

    Actors that wait for the replay's rate limiter wait for the learner; a learner that waits for samples waits for
    the actors. With neither waiting a twentieth of its time, the machine's processors are what bounds the run. In an
    offline run the learner waits for the replay alone.
    """
    blocked, waiting = row["time"]["actors_blocked"], row["time"]["learner_waiting"]
    if row["offline"]:
        return "replay" if waiting >= 0.05 else "learner"
    if max(blocked, waiting) < 0.05:
        return "processors"
    return "learner" if blocked > waiting else "actors"
