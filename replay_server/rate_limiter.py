"""Keeps learning independent of which process happens to be faster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from replay_server.errors import ConfigError


@dataclass(frozen=True)
class RateLimiter:
    """The law that says who may go on; it holds no counters.

    With `inserted` records ever inserted, `sampled` sample credits ever spent and

        error = inserted * samples_per_insert - sampled
        min_diff, max_diff = samples_per_insert * min_size -/+ error_buffer

    (the bounds of Reverb's rate limiter), an insert is admitted while size < min_size or error < max_diff, a sample
    while size >= min_size and error > min_diff. The error is the one *before* the operation: an operation of any
    length may start inside the bounds, so they are overshot by at most one operation and no chunk or batch size can
    dead-lock. Since min_diff < max_diff, at least one side may always go on.

    Args:
        min_size: records a table must hold before it is sampled, >= 1.
        samples_per_insert: how often a record is sampled on average; None for no such limit.
        error_buffer: how far the two sides may run apart, in samples; by default a tenth of
            samples_per_insert * min_size, at least 2 * max(1, samples_per_insert).

    Raises:
        ConfigError: a setting that could never work.
    """

    min_size: int = 1
    samples_per_insert: float | None = None
    error_buffer: float | None = None

    def __post_init__(self) -> None:
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

    def blocks_insert(self, size: int, inserted: int, sampled: float) -> str | None:
        """None when an insert may start, else what it waits for: `samples`."""
        if self.samples_per_insert is None or self.error_buffer is None or size < self.min_size:
            return None
        error = inserted * self.samples_per_insert - sampled
        bound = self.samples_per_insert * self.min_size + self.error_buffer
        return None if error < bound else "samples"

    def blocks_sample(self, size: int, inserted: int, sampled: float) -> str | None:
        """None when a sample may start, else what it waits for: `min_size` or `inserts`."""
        if size < self.min_size:
            return "min_size"
        if self.samples_per_insert is None or self.error_buffer is None:
            return None
        error = inserted * self.samples_per_insert - sampled
        bound = self.samples_per_insert * self.min_size - self.error_buffer
        return None if error > bound else "inserts"
