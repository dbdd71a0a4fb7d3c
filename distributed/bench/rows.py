"""The rows of the benchmark, with the targets of the replay server and the peers they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from replay_server.errors import ConfigError

RECORDS = "records/s"
BATCHES = "batches of 512/s"
TIMES = "x"
GRPC, SHM, IN_PROCESS = "gRPC", "shared memory", "in process"


@dataclass(frozen=True)
class Rival:
    """One measurement of a peer beside a row of ours; `factor` is how many times faster we have to be, if at all."""

    peer: str
    operation: str
    workload: str
    factor: float | None = None

    @property
    def name(self) -> str:
        """Its name among the measurements."""
        return f"{self.peer}-{self.operation}-{self.workload}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: as `--rows` takes it.
        title: for people.
        transport: how the records travel.
        unit: of figure, target and limit.
        target: what must hold, if anything.
        at_most: the target is a ceiling.
        limit: name of the physical limit shown beside it.
        rivals: what peers do.
    """

    name: str
    title: str
    transport: str
    unit: str
    target: float | None = None
    at_most: bool = False
    limit: str | None = None
    rivals: tuple[Rival, ...] = ()

    def holds(self, value: float) -> bool | None:
        """Whether a figure meets the target; None without one."""
        if self.target is None:
            return None
        return value <= self.target if self.at_most else value >= self.target


IN_PROCESS_PEERS = ("cpprb", "tianshou", "torchrl")


def _rivals(operation: str, work: str, factors: dict[str, float]) -> tuple[Rival, ...]:
    peers = ("reverb", *IN_PROCESS_PEERS)
    return tuple(Rival(peer, operation, work, factors.get(peer)) for peer in peers)


_ABOVE_ALL = dict.fromkeys(IN_PROCESS_PEERS, 1.0)
CHI_SQUARE_MOST = 1.36
"""Four standard deviations above the mean of chi-square / 255 with 255 degrees of freedom."""

ROWS = (
    Row("grpc-insert-8", "insert, D=8, chunks of 4096", GRPC, RECORDS, 2e6, limit="echo-insert-8",
        rivals=_rivals("insert", "8", {"reverb": 100.0})),
    Row("grpc-sample-8", "prioritized sample, D=8", GRPC, RECORDS, 2.5e6, limit="echo-sample-8",
        rivals=_rivals("sample", "8", {"reverb": 50.0, "cpprb": 2.0})),
    Row("grpc-cycle-8", "sample + priority update cycle, D=8", GRPC, RECORDS, 1.8e6, limit="echo-sample-8",
        rivals=_rivals("cycle", "8", {})),
    Row("shm-insert-8", "insert, D=8, chunks of 4096", SHM, RECORDS, limit="memcpy-8"),
    Row("shm-sample-8", "prioritized sample, D=8", SHM, RECORDS, 5e6, limit="gather-8",
        rivals=_rivals("sample", "8", _ABOVE_ALL)),
    Row("shm-cycle-8", "sample + priority update cycle, D=8", SHM, RECORDS, limit="gather-8",
        rivals=_rivals("cycle", "8", {})),
    Row("grpc-sample-128", "prioritized sample, D=128", GRPC, RECORDS, 0.8e6, limit="echo-sample-128",
        rivals=_rivals("sample", "128", {})),
    Row("shm-sample-128", "prioritized sample, D=128", SHM, RECORDS, 2.5e6, limit="gather-128",
        rivals=_rivals("sample", "128", {})),
    Row("shm-sample-images", "prioritized sample, images", SHM, BATCHES, 150.0, limit="gather-images"),
    Row("shm-read-images", "the same, every byte read by the client", SHM, BATCHES, limit="gather-images"),
    Row("in-process-insert-8", "insert, D=8, chunks of 4096", IN_PROCESS, RECORDS, limit="memcpy-8",
        rivals=_rivals("insert", "8", {})),
    Row("in-process-sample-8", "sample through the client, D=8", IN_PROCESS, BATCHES, 12_000.0,
        limit="gather-batches-8"),
    Row("in-process-update-8", "update through the client, D=8", IN_PROCESS, BATCHES, 20_000.0),
    Row("table-sample-8", "sample of the table itself, D=8", IN_PROCESS, BATCHES, 12_000.0, limit="gather-batches-8"),
    Row("table-update-8", "update of the table itself, D=8", IN_PROCESS, BATCHES, 20_000.0),
    Row("shards-sample", "sample, N shards (2) against 1, D=8", GRPC, TIMES, 0.9),
    Row("shards-cycle", "sample + update cycle, N shards (2) against 1, D=8", GRPC, TIMES, 0.9),
    Row("shards-chi-square", "chi-square of the draws over 2 unequal shards / degrees of freedom", GRPC, "",
        CHI_SQUARE_MOST, at_most=True),
    Row("journal-insert", "insert with durability journal against checkpoint, D=8", GRPC, TIMES, 0.6, limit="write"),
    Row("fsync-insert", "insert with durability fsync against checkpoint, D=8", GRPC, TIMES, limit="write-fsync"),
    Row("snapshot-pause", "longest client call while a snapshot is written, D=128", GRPC, "ms", 50.0, at_most=True),
    Row("snapshot-load", "throughput while a snapshot is written against before, D=128", GRPC, TIMES, 0.7),
    Row("bytes-per-record", "bytes per stored record beyond the record itself", "-", "B", 48.0, at_most=True),
)  # fmt: skip


def chosen(patterns: Sequence[str], rows: tuple[Row, ...] = ROWS) -> tuple[Row, ...]:
    """Those of `rows` whose names match one of the patterns (`grpc-*`); all of them without any.

    Raises:
        ConfigError: a pattern that matches none.
    """
    names = [row.name for row in rows]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = get_close_matches(pattern, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; rows: {', '.join(names)}"
            raise ConfigError(f"--rows: {pattern}: no such row{hint}")
    return tuple(row for row in rows if not patterns or any(fnmatchcase(row.name, p) for p in patterns))
