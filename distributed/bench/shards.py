"""Shards as users start them: `headrace serve-replay` in processes of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from distributed.bench.workload import ALPHA, Workload
from distributed.shard_process import ShardProcess

_STOP_S = 10.0


@dataclass(frozen=True)
class ServedShard:
    """Where a running shard answers and where it writes."""

    address: str
    directory: Path
    pid: int

    @property
    def resident_bytes(self) -> int:
        """Memory of its process that is in use now."""
        fields = Path(f"/proc/{self.pid}/status").read_text().split()
        return int(fields[fields.index("VmRSS:") + 1]) * 1024

    @property
    def cpu_s(self) -> float:
        """Processor time its process has used so far."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(work: Workload, parent: Path | None, *, shards: int = 1, **settings: object) -> Iterator[list[ServedShard]]:
    """Serve `work` from so many processes, started side by side, each with its part of the capacity.

    Args:
        work: layout and number of records.
        parent: where the shards' directories go; None for the system's place for temporary files.
        shards: how many.
        settings: more of the shards' config.

    Raises:
        WorkerDied: one did not start; the message has its last words.
    """
    root = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=parent))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        yield [_start(stack, work, root, index, shards, settings) for index in range(shards)]


def _start(
    stack: ExitStack, work: Workload, root: Path, index: int, shards: int, settings: dict[str, object]
) -> ServedShard:
    directory = root / str(index)
    directory.mkdir()
    config = {
        "address": "127.0.0.1:0",
        "spec": {
            "fields": [{"name": f.name, "dtype": f.dtype, "shape": list(f.shape)} for f in work.spec.fields],
        },
        "capacity": work.records // shards,
        "priority_exponent": ALPHA,
        "directory": str(directory),
        "seed": index,
        "shard_index": index,
        **settings,
    }
    file = root / f"{index}.yaml"
    file.write_text(yaml.safe_dump(config))
    shard = ShardProcess(file)
    stack.callback(shard.stop, _STOP_S)
    return ServedShard(shard.address, directory, shard.pid)
