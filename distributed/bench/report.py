"""What a run of the benchmark found: as JSON, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import Struct

from distributed.bench.figure import Figure
from distributed.bench.json_report import JsonReport
from distributed.bench.limits import DESCRIPTIONS
from distributed.bench.machine import Machine
from distributed.bench.markdown import number, spread, table
from distributed.bench.notebook import Notebook
from distributed.bench.rows import BATCHES, TIMES, Rival, Row
from distributed.bench.workload import BATCH


class Comparison(Struct, frozen=True):
    """A peer's figure beside a row, in records/s, and how many times ours it is; `missing` says why it is not there."""

    peer: str
    operation: str
    factor: float | None
    figure: Figure | None = None
    ratio: Figure | None = None
    passed: bool | None = None
    missing: str | None = None


class Line(Struct, frozen=True):
    """One row as measured. `passed` is None without a target; `missing` says why there is no figure."""

    name: str
    title: str
    transport: str
    unit: str
    target: float | None
    at_most: bool
    figure: Figure | None
    passed: bool | None
    limit: str | None
    limit_figure: Figure | None
    comparisons: tuple[Comparison, ...]
    details: dict[str, Any]
    missing: str | None


class Report(JsonReport, frozen=True):
    """Of `bench replay` or `bench learner`; `began` is UTC, times are in seconds."""

    origin: ClassVar[str] = "headrace bench replay or learner"

    machine: Machine
    began: str
    took_s: float
    quick: bool
    repetitions: int
    sample_s: float
    records: dict[str, int]
    lines: tuple[Line, ...]
    limits: dict[str, Figure]
    others: dict[str, Figure]
    details: dict[str, dict[str, Any]]


def line_of(row: Row, book: Notebook) -> Line:
    """What the notebook knows about one row."""
    figure = book.figures.get(row.name)
    missing = None if figure is not None else book.missing.get(row.name, "not measured")
    comparisons = tuple(_compared(row, rival, figure, book) for rival in row.rivals)
    verdicts = [row.holds(figure.median)] if figure is not None else []
    verdicts += [c.passed for c in comparisons if c.factor is not None]
    known = [verdict for verdict in verdicts if verdict is not None]
    return Line(
        name=row.name,
        title=row.title,
        transport=row.transport,
        unit=row.unit,
        target=row.target,
        at_most=row.at_most,
        figure=figure,
        passed=all(known) if known else None,
        limit=row.limit,
        limit_figure=book.figures.get(row.limit or ""),
        comparisons=comparisons,
        details=book.details.get(row.name, {}),
        missing=missing,
    )


def _compared(row: Row, rival: Rival, ours: Figure | None, book: Notebook) -> Comparison:
    theirs = book.figures.get(rival.name)
    if theirs is None:
        missing = book.missing.get(rival.name, "not asked for")
        return Comparison(rival.peer, rival.operation, rival.factor, missing=missing)
    if ours is None:
        return Comparison(rival.peer, rival.operation, rival.factor, theirs)
    scale = BATCH if row.unit == BATCHES else 1
    ratio = Figure.of([scale * sample for sample in ours.samples]).over(theirs)
    passed = None if rival.factor is None else ratio.median >= rival.factor
    return Comparison(rival.peer, rival.operation, rival.factor, theirs, ratio, passed)


def markdown(report: Report) -> str:
    """The table, and under it what it was measured on."""
    head = ("row", "over", "measured: median (min - max)", "target", "limit", "peers in the same run", "holds")
    return f"{table(head, [_cells(line) for line in report.lines])}\n{_facts(report)}"


def _cells(line: Line) -> tuple[str, ...]:
    measured = spread(line.figure, line.unit) if line.figure else f"not measured: {line.missing}"
    target = "-" if line.target is None else f"{'<=' if line.at_most else '>='} {number(line.target)} {line.unit}"
    limit = number(line.limit_figure.median) if line.limit_figure is not None else "-"
    if line.unit == TIMES:
        pair = [value for value in line.details.values() if isinstance(value, float)]
        measured += f": {number(pair[0])} against {number(pair[1])} records/s" if len(pair) == 2 else ""
        limit += " records/s" if line.limit_figure is not None else ""
    peers = [_peer(c) for c in line.comparisons if c.missing != "not asked for"]
    holds = {True: "yes", False: "**no**", None: "-"}[line.passed]
    return f"{line.title}", line.transport, measured, target.strip(), limit, "; ".join(peers) or "-", holds


def _peer(comparison: Comparison) -> str:
    if comparison.figure is None:
        return f"{comparison.peer}: {comparison.missing}"
    text = f"{comparison.peer} {number(comparison.figure.median)}"
    if comparison.ratio is not None:
        text += f": {number(comparison.ratio.median)} x"
    return text + (f" (>= {comparison.factor:g} x)" if comparison.factor is not None else "")


def _facts(report: Report) -> str:
    peers = ", ".join(
        f"{name} {facts['version']} holding {facts['holds']:,}"
        for name, facts in sorted(report.details.items())
        if "holds" in facts
    )
    small = " with --quick: too small and too short to judge by" if report.quick else ""
    lines = [
        f"Measured {report.began} UTC in {report.took_s:.0f} s{small} on {report.machine.text}. "
        f"{report.repetitions} samples of {report.sample_s:g} s each, in turn.",
    ]
    if report.records:
        lines.append("Records: " + ", ".join(f"{name}: {count:,}" for name, count in report.records.items()) + ".")
    if peers:
        lines.append(f"Peers: {peers} records.")
    limits = [
        f"{name} {spread(figure)} ({DESCRIPTIONS[name]})"
        for name, figure in report.limits.items()
        if name in DESCRIPTIONS
    ]
    if limits:
        lines.append("Limits: " + "; ".join(limits) + ".")
    return "\n\n".join(lines) + "\n"


def plain(lines: Sequence[Line]) -> str:
    """The table for a screen: one line a row, peers under it."""
    width = max(len(line.name) for line in lines)
    shown = []
    for line in lines:
        cells = _cells(line)
        holds = {True: "yes", False: "NO", None: ""}[line.passed]
        shown.append(f"{line.name:<{width}}  {cells[2]:<48}  {cells[3]:<24} {holds}".rstrip())
        shown += [f"{'':<{width}}    {_peer(c)}" for c in line.comparisons if c.missing != "not asked for"]
    return "\n".join(shown) + "\n"
