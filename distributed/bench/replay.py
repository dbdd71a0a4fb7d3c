"""`headrace bench replay`: every row of the replay server's table in one run on one machine."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from distributed.bench.json_report import check_writable
from distributed.bench.limits import DESCRIPTIONS, measure_limits
from distributed.bench.machine import Machine
from distributed.bench.notebook import Notebook
from distributed.bench.pair_rows import measure_chi_square, measure_durability, measure_shards
from distributed.bench.report import Report, line_of, plain
from distributed.bench.rows import ROWS, Row
from distributed.bench.served_rows import measure_served
from distributed.bench.snapshot_rows import measure_memory, measure_snapshot
from distributed.bench.workload import Workload
from replay_server.errors import ConfigError


@dataclass(frozen=True)
class Size:
    """How much is measured: records of vectors and of images, repetitions, seconds a sample, seconds to fill a peer."""

    records: int
    images: int
    repetitions: int
    seconds: float
    fill_seconds: float


FULL = Size(records=2**20, images=2**15, repetitions=5, seconds=0.6, fill_seconds=15.0)
QUICK = Size(records=2**14, images=2**10, repetitions=2, seconds=0.1, fill_seconds=2.0)


@dataclass(frozen=True)
class ReplayBench:
    """One run.

    Args:
        rows: what to measure.
        quick: small sizes and short times, to see that everything runs.
        json: file for the raw figures.
        directory: where shards write journals and snapshots; None for the system's place for temporary files.
        peers: interpreter of each peer.
        shards: how many are compared with one, >= 2.
    """

    rows: tuple[Row, ...] = ROWS
    quick: bool = False
    json: Path | None = None
    directory: Path | None = None
    peers: dict[str, Path] = field(default_factory=dict)
    shards: int = 2

    def run(self) -> int:
        """Measure, print the table, write the file; 0 also when targets are missed or rows could not be measured.

        Raises:
            ConfigError: the file or the directory cannot be written to.
        """
        self._check()
        size = QUICK if self.quick else FULL
        machine, began, begin = Machine.here(), time.gmtime(), time.monotonic()
        works = {name: Workload(name, size.records) for name in ("8", "128")}
        works["images"] = Workload("images", size.images)
        with ScreenProgress() as progress:
            book = Notebook(self.rows, size.repetitions, size.seconds, progress)
            self._measure(book, works, size)
        limits = {name: book.figures[name] for name in DESCRIPTIONS if name in book.figures}
        own = {row.name for row in self.rows}
        report = Report(
            machine=machine,
            began=time.strftime("%Y-%m-%d %H:%M", began),
            took_s=round(time.monotonic() - begin, 1),
            quick=self.quick,
            repetitions=size.repetitions,
            sample_s=size.seconds,
            records={name: work.records for name, work in works.items()},
            lines=tuple(line_of(row, book) for row in self.rows),
            limits=limits,
            others={name: figure for name, figure in book.figures.items() if name not in own | limits.keys()},
            details=book.details,
        )
        print(plain(report.lines), end="")
        if self.json is not None:
            report.write(self.json)
        return 0

    def _measure(self, book: Notebook, works: dict[str, Workload], size: Size) -> None:
        """Smaller things first; nothing of one part is in memory when the next begins."""
        needed = {row.limit for row in self.rows}
        of = [w for name, w in works.items() if any(limit and limit.endswith(f"-{name}") for limit in needed)]
        if needed & {"write", "write-fsync"} and works["8"] not in of:
            of.append(works["8"])
        if of:
            measure_limits(book, of, self.directory)
        for work in works.values():
            measure_served(book, work, self.directory, self.peers, size.fill_seconds)
        measure_shards(book, works["8"], self.directory, self.shards)
        measure_chi_square(book, works["8"], self.directory)
        measure_durability(book, works["8"], self.directory)
        measure_snapshot(book, works["128"], self.directory)
        measure_memory(book, works["8"])

    def _check(self) -> None:
        """Everything that could spoil the result is looked at before minutes are spent."""
        if self.directory is not None:
            try:
                with tempfile.TemporaryFile(dir=self.directory):
                    pass
            except OSError as error:
                raise ConfigError(f"--directory: {self.directory}: {error.strerror}; name one to write to") from None
        check_writable(self.json)


class ScreenProgress:
    """What is going on, on stderr: one line that changes, or plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("starting") if self._console.is_terminal else None

    def show(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> ScreenProgress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
