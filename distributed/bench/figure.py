"""Repeated measurements as one figure: the median and how far the others lie from it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from msgspec import Struct


class Figure(Struct, frozen=True):
    """The samples in the order they were taken, with their median and range."""

    samples: tuple[float, ...]
    median: float
    low: float
    high: float

    @staticmethod
    def of(samples: Sequence[float]) -> Figure:
        """Raises ValueError without any sample."""
        if not samples:
            raise ValueError("a figure needs at least one sample")
        return Figure(tuple(samples), median(samples), min(samples), max(samples))

    def over(self, other: Figure) -> Figure:
        """The ratio to another figure whose samples were taken in turn with ours, pair by pair.

        Raises:
            ValueError: as many samples are not there, or one of the other's is not above zero.
        """
        if len(self.samples) != len(other.samples) or min(other.samples) <= 0.0:
            raise ValueError("a ratio needs pairs of samples, those below above zero")
        return Figure.of([ours / theirs for ours, theirs in zip(self.samples, other.samples, strict=True)])
