"""What a run of the benchmark found: as JSON, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from distributed.bench.figure import Figure
from distributed.bench.limits import DESCRIPTIONS
from distributed.bench.machine import Machine
from distributed.bench.notebook import Notebook
from distributed.bench.rows import BATCHES, TIMES, Rival, Row
from distributed.bench.workload import BATCH
from replay_server.errors import ConfigError


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


class Report(Struct, frozen=True):
    """Everything a run measured; `began` is UTC, times are in seconds."""

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

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @staticmethod
    def read(path: Path) -> Report:
        """Raises ConfigError when the file is not a report."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Report)
        except OSError as error:
            raise ConfigError(f"{path}: cannot read it: {error.strerror}; check the path") from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path}: not a report of headrace bench replay: {error}") from None


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
    table = [
        ("row", "over", "measured: median (min - max)", "target", "limit", "peers in the same run", "holds"),
        ("---",) * 7,
        *(_cells(line) for line in report.lines),
    ]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    return f"{text}\n{_facts(report)}"


def _cells(line: Line) -> tuple[str, ...]:
    measured = _figure(line.figure, line.unit) if line.figure else f"not measured: {line.missing}"
    target = "-" if line.target is None else f"{'<=' if line.at_most else '>='} {_number(line.target)} {line.unit}"
    limit = _number(line.limit_figure.median) if line.limit_figure is not None else "-"
    if line.unit == TIMES:
        pair = [value for value in line.details.values() if isinstance(value, float)]
        measured += f": {_number(pair[0])} against {_number(pair[1])} records/s" if len(pair) == 2 else ""
        limit += " records/s" if line.limit_figure is not None else ""
    peers = [_peer(c) for c in line.comparisons if c.missing != "not asked for"]
    holds = {True: "yes", False: "**no**", None: "-"}[line.passed]
    return f"{line.title}", line.transport, measured, target.strip(), limit, "; ".join(peers) or "-", holds


def _peer(comparison: Comparison) -> str:
    if comparison.figure is None:
        return f"{comparison.peer}: {comparison.missing}"
    text = f"{comparison.peer} {_number(comparison.figure.median)}"
    if comparison.ratio is not None:
        text += f": {_number(comparison.ratio.median)} x"
    return text + (f" (>= {comparison.factor:g} x)" if comparison.factor is not None else "")


def _facts(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    peers = ", ".join(
        f"{name} {facts['version']} holding {facts['holds']:,}"
        for name, facts in sorted(report.details.items())
        if "holds" in facts
    )
    memory = machine.memory_bytes / 2**30
    small = " with --quick: too small and too short to judge by" if report.quick else ""
    lines = [
        f"Measured {report.began} UTC in {report.took_s:.0f} s{small} on {machine.cores} cores ({machine.cpu}), "
        f"{memory:.0f} GiB, {machine.system}, Python {machine.python}, {versions}; load at the start "
        f"{machine.load:.1f}. {report.repetitions} samples of {report.sample_s:g} s each, in turn.",
    ]
    if report.records:
        lines.append("Records: " + ", ".join(f"{name}: {count:,}" for name, count in report.records.items()) + ".")
    if peers:
        lines.append(f"Peers: {peers} records.")
    limits = [
        f"{name} {_figure(figure, '')} ({DESCRIPTIONS[name]})"
        for name, figure in report.limits.items()
        if name in DESCRIPTIONS
    ]
    if limits:
        lines.append("Limits: " + "; ".join(limits) + ".")
    return "\n\n".join(lines) + "\n"


def _figure(figure: Figure, unit: str) -> str:
    text = f"{_number(figure.median)} {unit}".strip()
    return f"{text} ({_number(figure.low)} - {_number(figure.high)})" if len(figure.samples) > 1 else text


def _number(value: float) -> str:
    """Three significant digits."""
    if value == 0.0:
        return "0"
    digits = 2 - floor(log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.0f}" if digits <= 0 else f"{rounded:.{digits}f}"


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
