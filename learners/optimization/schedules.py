"""How a setting moves over a run; positions are shares of the stretch it moves over."""

from __future__ import annotations

import math


def linear(start: float, end: float, position: float) -> float:
    """From `start` to `end` while `position` goes from 0 to 1; before and after it stays."""
    return start + (end - start) * min(max(position, 0.0), 1.0)


def cosine(start: float, end: float, position: float) -> float:
    """From `start` to `end` along half a cosine while `position` goes from 0 to 1; before and after it stays."""
    return linear(end, start, 0.5 * (1.0 + math.cos(math.pi * min(max(position, 0.0), 1.0))))


def warm_restarts(start: float, end: float, position: float, growth: float) -> float:
    """Cosines from `start` to `end`, one after another (SGDR; Loshchilov and Hutter 2017).

    Args:
        start: value at the beginning of every period.
        end: value it falls to.
        position: in lengths of the first period, >= 0.
        growth: >= 1, each period is so many times as long as the one before.
    """
    if growth == 1.0:
        return cosine(start, end, position % 1.0)
    period = math.floor(math.log1p(position * (growth - 1.0)) / math.log(growth) + 1e-9)  # a start, rounded, is one
    begin = (growth**period - 1.0) / (growth - 1.0)
    return cosine(start, end, (position - begin) / growth**period)
