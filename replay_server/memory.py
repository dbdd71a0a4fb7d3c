"""What a shard will hold when it is full, and whether the machine or the container has that much.

Tables are allocated untouched, so an impossible size would start well and die hours later, when its pages are first
written: the sum is therefore done and compared before anything is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from replay_server.errors import ConfigError

INTERPRETER_BYTES = 384 << 20
"""Left to the interpreter, its libraries and compiled kernels, 210 MiB in an empty shard, and to what the allocator
keeps for each thread between messages: `tests/fault/test_memory_budget.py` has seen 100 to 150 MiB."""

_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as the largest multiple of a page


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes this process may still take, and where that figure comes from."""

    available: int
    source: str


@dataclass(frozen=True)
class MemoryBudget:
    """Every part of a shard's memory at its largest, in bytes.

    Attributes:
        capacity: records held at most.
        record_size: bytes of one packed record.
        table: the table's arrays beside the records: tree, generations, order.
        snapshot: what a snapshot holds while it is taken, see `capture.working_bytes`.
        journal: buffers of the journal, 0 without one.
        messages: requests and replies under way, at most.
    """

    capacity: int
    record_size: int
    table: int
    snapshot: int = 0
    journal: int = 0
    messages: int = 0

    @property
    def records(self) -> int:
        """Bytes of the records themselves."""
        return self.capacity * self.record_size

    @property
    def total(self) -> int:
        """Bytes of everything, without the interpreter."""
        return self.records + self.table + self.snapshot + self.journal + self.messages

    def __str__(self) -> str:
        """`1,000,000 x 80 B = 76 MiB + tree 35 MiB + ... = 140 MiB`; parts of size zero are left out."""
        parts = (
            ("tree and order", self.table),
            ("snapshots", self.snapshot),
            ("journal", self.journal),
            ("messages", self.messages),
        )
        rest = "".join(f" + {name} {size_text(size)}" for name, size in parts if size)
        return f"{self.capacity:,} x {self.record_size:,} B = {size_text(self.records)}{rest} = {size_text(self.total)}"

    def check(self, limit: MemoryLimit) -> None:
        """Compare with what there is.

        Raises:
            ConfigError: it does not fit; nothing was allocated.
        """
        needed = self.total + INTERPRETER_BYTES
        if needed > limit.available:
            raise ConfigError(
                f"capacity: this shard needs {self} + interpreter {size_text(INTERPRETER_BYTES)} when full, but "
                f"{limit.source} leaves {size_text(limit.available)}: lower capacity, or give it more memory"
            )


def memory_limit(root: Path = Path("/")) -> MemoryLimit:
    """The tightest of the machine's memory and the limits of every control group above this process.

    What others use now is taken off; page cache counts as free, because the kernel gives it up.

    Args:
        root: where `proc` and `sys` are found.

    Returns:
        The figure and its source; without any readable source a figure nothing exceeds.
    """
    limits = [*_machine(root), *_groups(root)]
    return min(limits, key=lambda limit: limit.available, default=MemoryLimit(_UNLIMITED, "no known limit"))


def size_text(size: int) -> str:
    """MiB below 10 GiB, GiB above; never rounded down to nothing."""
    if size >= 10 << 30:
        return f"{size / 2**30:,.1f} GiB"
    mib = size / 2**20
    return f"{mib:,.0f} MiB" if mib >= 10 else f"{mib:,.1f} MiB"


def _machine(root: Path) -> list[MemoryLimit]:
    values = _table_of(root / "proc/meminfo")
    total, available = values.get("MemTotal:"), values.get("MemAvailable:")
    if total is None:
        return []
    source = f"this machine's memory ({size_text(total * 1024)}, /proc/meminfo)"
    return [MemoryLimit((total if available is None else available) * 1024, source)]


def _groups(root: Path) -> list[MemoryLimit]:
    """Limits of our control groups and all their ancestors, version 1 and 2."""
    limits = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = root / "sys/fs/cgroup/memory"
        else:
            continue
        # inside a container the path may be the host's: then only the mount itself, which is our group, is there
        steps = [step for step in path.split("/") if step not in ("", "..")]
        for depth in range(len(steps), -1, -1):
            limits += _group(base.joinpath(*steps[:depth]), names)
    return limits


def _group(directory: Path, names: tuple[str, str, str]) -> list[MemoryLimit]:
    """The limit of one control group, if it has one."""
    most, used = (_number(directory / name) for name in names[:2])
    if most is None or most >= _UNLIMITED:
        return []
    reclaimable = _table_of(directory / "memory.stat").get(names[2], 0)
    free = most - max((used or 0) - reclaimable, 0)
    return [
        MemoryLimit(max(free, 0), f"the memory limit of this container ({size_text(most)}, {directory / names[0]})")
    ]


def _table_of(path: Path) -> dict[str, int]:
    """`name number ...` lines; others are left out."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
