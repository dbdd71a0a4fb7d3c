"""Keeps learning independent of which process happens to be faster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from replay_server.errors import ConfigError, InvalidRecord


@dataclass(frozen=True)
class RateLimiter:
    """The law that says who may go on; it holds no counters.

    **Ratio.** With `inserted` records ever inserted, `sampled` sample credits ever spent and

        error = inserted * samples_per_insert - sampled
        min_diff, max_diff = samples_per_insert * min_size -/+ error_buffer

    (the bounds of Reverb's rate limiter), an insert is admitted while size < min_size or error < max_diff, a sample
    while size >= min_size and error > min_diff. The error is the one *before* the operation: an operation of any
    length may start inside the bounds, so they are overshot by at most one operation and no chunk or batch size can
    dead-lock. Since min_diff < max_diff, at least one side may always go on. Where records leave by being sampled
    (`max_times_sampled`), that holds for batches of at most min_size rows: larger ones could wait for records that
    the law does not let in.

    **Queue**, made by `RateLimiter.queue`. Every record is sampled once, so the records inserted and not yet sampled
    are those in the table: an insert of n rows is admitted while size + n <= queue_size, a sample of n rows while
    size >= n. Exact: the bounds hold *after* the operation. A chunk and a batch that have more than queue_size + 1 rows
    together could therefore wait for each other; a shard on which that happens answers `Deadlocked`. The records leave
    in the order of the table's sampler: `fifo` makes a queue, `lifo` a stack.

    Args:
        min_size: records a table must hold before it is sampled, >= 1.
        samples_per_insert: how often a record is sampled on average; None for no such limit.
        error_buffer: how far the two sides may run apart, in samples; by default a tenth of
            samples_per_insert * min_size, at least 2 * max(1, samples_per_insert).
        queue_size: records that may wait to be sampled; None for the law of the ratio.

    Raises:
        ConfigError: a setting that could never work.
    """

    min_size: int = 1
    samples_per_insert: float | None = None
    error_buffer: float | None = None
    queue_size: int | None = None

    @staticmethod
    def queue(queue_size: int) -> RateLimiter:
        """The law of a queue or stack of at most `queue_size` records."""
        return RateLimiter(queue_size=queue_size)

    def __post_init__(self) -> None:
        if self.queue_size is not None:
            if self.queue_size < 1:
                raise ConfigError(f"rate_limiter.queue_size is {self.queue_size}, must be at least 1")
            if self.min_size != 1 or self.samples_per_insert is not None or self.error_buffer is not None:
                raise ConfigError(
                    "rate_limiter.queue_size goes with none of min_size, samples_per_insert and error_buffer: a queue "
                    "lets every record be sampled once and no sooner or later than it is there"
                )
        if self.min_size < 1:
            raise ConfigError(f"rate_limiter.min_size is {self.min_size}, must be at least 1")
        ratio = self.samples_per_insert
        if ratio is None:
            if self.error_buffer is not None:
                raise ConfigError("rate_limiter.error_buffer needs samples_per_insert")
            return
        if not (math.isfinite(ratio) and ratio > 0.0):
            raise ConfigError(f"rate_limiter.samples_per_insert is {ratio}, must be above 0, or null for no limit")
        if self.error_buffer is None:
            object.__setattr__(self, "error_buffer", max(0.1 * ratio * self.min_size, 2.0 * max(1.0, ratio)))
        elif not (math.isfinite(self.error_buffer) and self.error_buffer > 0.0):
            raise ConfigError(
                f"rate_limiter.error_buffer is {self.error_buffer}, must be above 0: neither side could ever go on"
            )

    def check_table(self, capacity: int, max_times_sampled: int | None) -> None:
        """Refuse a table with which inserting and sampling could wait for each other for ever.

        Raises:
            ConfigError: naming both settings.
        """
        if self.min_size > capacity:
            raise ConfigError(
                f"rate_limiter.min_size is {self.min_size}, capacity is {capacity}: "
                "sampling could never start; raise capacity or lower min_size"
            )
        if self.queue_size is not None and max_times_sampled != 1:
            raise ConfigError(f"rate_limiter.queue_size needs max_times_sampled 1, it is {max_times_sampled}")
        if self.queue_size is not None and self.queue_size > capacity:
            raise ConfigError(
                f"rate_limiter.queue_size is {self.queue_size}, capacity is {capacity}: records would be overwritten "
                "before they are sampled; raise capacity or lower queue_size"
            )
        ratio = self.samples_per_insert
        if max_times_sampled is not None and ratio is not None and ratio > max_times_sampled:
            raise ConfigError(
                f"rate_limiter.samples_per_insert is {ratio}, max_times_sampled is "
                f"{max_times_sampled}: inserting would wait for samples that records no longer allow"
            )

    def blocks_insert(self, size: int, inserted: int, sampled: float, rows: int) -> str | None:
        """None when an insert of `rows` may start, else what it waits for: `samples`.

        Raises:
            InvalidRecord: more rows than the queue ever holds.
        """
        if self.queue_size is not None:
            self._check_rows(rows)
            return None if size + rows <= self.queue_size else "samples"
        if self.samples_per_insert is None or self.error_buffer is None or size < self.min_size:
            return None
        error = inserted * self.samples_per_insert - sampled
        bound = self.samples_per_insert * self.min_size + self.error_buffer
        return None if error < bound else "samples"

    def blocks_sample(self, size: int, inserted: int, sampled: float, rows: int) -> str | None:
        """None when a sample of `rows` may start, else what it waits for: `min_size` or `inserts`.

        Raises:
            InvalidRecord: more rows than the queue ever holds.
        """
        if self.queue_size is not None:
            self._check_rows(rows)
            return None if size >= rows else "inserts"
        if size < self.min_size:
            return "min_size"
        if self.samples_per_insert is None or self.error_buffer is None:
            return None
        error = inserted * self.samples_per_insert - sampled
        bound = self.samples_per_insert * self.min_size - self.error_buffer
        return None if error > bound else "inserts"

    def _check_rows(self, rows: int) -> None:
        if self.queue_size is not None and rows > self.queue_size:
            raise InvalidRecord(f"{rows} records at once, the queue holds {self.queue_size} at most: ask for fewer")
