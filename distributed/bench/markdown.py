"""Figures as text, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

from distributed.bench.figure import Figure


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def spread(figure: Figure, unit: str = "") -> str:
    """The median, and between what the samples lie where there are several."""
    text = f"{number(figure.median)} {unit}".strip()
    return f"{text} ({number(figure.low)} - {number(figure.high)})" if len(figure.samples) > 1 else text


def number(value: float) -> str:
    """Three significant digits."""
    if value == 0.0:
        return "0"
    digits = 2 - floor(log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.0f}" if digits <= 0 else f"{rounded:.{digits}f}"
