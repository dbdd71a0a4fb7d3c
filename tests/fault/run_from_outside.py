"""A run as somebody sees it who may look at its processes, files and ports, and is no part of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from kit.processes import command_line
from kit.stamped import check_stamps, stamps_of

from distributed.manifest import read_manifest
from distributed.run_directory import RunDirectory, replay_snapshots
from replay_server import Replay, Unavailable, connect

TITLES = {
    "actor": "ray::RolloutWorker",
    "shard": "headrace serve-replay",
    "host": "ray::ShardHost",
    "learner": "ray::LearnerWorker",
    "store": "ray::WeightStore",
    "evaluator": "ray::EvaluatorWorker",
}
"""Kind of process -> what is in its command line."""

_COUNTS = {"actor": 2, "shard": 2, "host": 2, "learner": 1, "store": 1, "evaluator": 1}
_SETTINGS = [
    "--environment.num-envs", "4", "--algorithm.hidden-sizes", "[16]", "--algorithm.batch-size", "32",
    "--actors.count", "2", "--replay.shards", "2", "--replay.capacity", "60000", "--replay.min-size", "200",
    "--learner.samples-per-insert", "1", "--learner.publish-every-updates", "5",
    "--evaluation.every-env-steps", "1000", "--evaluation.episodes", "4", "--evaluation.final-episodes", "4",
    "--run.metrics-every-env-steps", "200", "--run.checkpoint-every-env-steps", "3000",
    "--run.total-env-steps", "1e9", "--run.max-seconds", "100000",
]  # fmt: skip
_START_S = 120.0
_END_S = 60.0
_TAIL = 65_536
_ASK_S = 2.0
_SEVERAL = 8


class RunFromOutside:
    """One `headrace train` in `kit.stamped` with two actors and two shards.

    Args:
        start: the `headrace` fixture.
        place: an empty directory.
        settings: further ones of the command line.
        learners: processes of its learner.
    """

    def __init__(self, start: Callable[..., Any], place: Path, *settings: str, learners: int = 1) -> None:
        self._counts = _COUNTS | {"learner": learners}
        self.path, self._beats = place / "run", place / "beats"
        self._beats.mkdir()
        self._start = start
        kwargs = json.dumps({"beats": str(self._beats), "step_seconds": 0.002})
        self.command = start(
            "train", "cartpole_dqn", "--environment.id", "kit.stamped:Stamped", "--environment.kwargs", kwargs,
            "--run-dir", str(self.path), *_SETTINGS, "--learner.processes", str(learners), *settings,
        )  # fmt: skip

    def resume(self) -> None:
        """Go on after the driver's end."""
        self.command = self._start("train", "--resume", str(self.path))

    def finish(self) -> None:
        """End it as Ctrl-C does: nothing acknowledged was lost, every step is there once, no process stays."""
        os.killpg(self.command.process.pid, signal.SIGINT)
        code, _, errors = self.command.finish(_END_S)
        assert code == 0 and "had acknowledged are lost" not in errors, errors
        self.check_history()
        self.command.wait_until_gone()

    def wait_until_whole(self) -> None:
        """All processes work and no others are there; there is a checkpoint to go back to."""
        self.wait_for(lambda: self.newest() is not None, "a checkpoint", _START_S)
        self.wait_for(lambda: self.row().get("evaluation") is not None, "an evaluation", _START_S)
        self.wait_for(self.complete, "all processes and no others", _START_S)

    def complete(self) -> bool:
        """Whether there are as many processes of each kind as there should be."""
        return {kind: len(pids) for kind, pids in self.processes().items()} == self._counts

    def pause(self, seconds: float) -> None:
        """Let the run go on."""
        until = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() >= until, "a pause", seconds + _START_S)

    def rising(self, name: str) -> Callable[[], bool]:
        """Whether a number of the metrics is larger than at the look before."""
        last = self.row()[name]

        def rises() -> bool:
            nonlocal last
            earlier, last = last, self.row()[name]
            return bool(last > earlier)

        return rises

    def newcomer(self, kind: str, before: Collection[int]) -> int | None:
        """A process of a kind that was not there before."""
        return next((pid for pid in self.pids(kind) if pid not in before), None)

    def acts_anew(self, kind: str, before: Collection[int]) -> bool:
        """Whether the environments of such a process have been stepped."""
        pid = self.newcomer(kind, before)
        return pid is not None and self.beats(pid) > _SEVERAL

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float) -> None:
        """Wait for something the run brings about; fails when the run ends before."""
        self.command.wait_for(condition, seconds, lambda: f"{what}; {self.processes()}; {self.row()}")

    def processes(self) -> dict[str, list[int]]:
        """Ids of the running processes of each kind."""
        titles = {pid: command_line(pid) for pid in self.command.descendants()}
        return {kind: [pid for pid, title in titles.items() if part in title] for kind, part in TITLES.items()}

    def pids(self, kind: str) -> list[int]:
        """Of one kind."""
        return self.command.descendants(TITLES[kind])

    def shard(self, index: int) -> int | None:
        """Process id of a shard."""
        return next(iter(self.command.descendants(f"shard-{index}.yaml")), None)

    def row(self) -> dict[str, Any]:
        """The newest row of metrics; {} before the first."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return {}
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            lines = file.read().split(b"\n")[:-1]
        row: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return row

    def beats(self, pid: int) -> int:
        """Steps that the environments of one process have made."""
        path = self._beats / str(pid)
        return path.stat().st_size if path.exists() else 0

    def inserted(self, index: int) -> int | None:
        """Records that a shard has ever counted as inserted; None while it does not answer."""
        pid = self.shard(index)
        ports = [] if pid is None else list(_listening(pid))
        if not ports:
            return None
        with contextlib.suppress(Unavailable), _client(ports[0]) as replay:
            shard = replay.stats().shards[0]
            return shard.inserted if shard.state == "serving" else None
        return None

    def newest(self) -> Path | None:
        """The newest complete checkpoint."""
        complete = RunDirectory(self.path).complete_checkpoints()
        return complete[-1] if complete else None

    def check_history(self) -> int:
        """See that the newest checkpoint holds every step that it must hold, once; returns the records there."""
        checkpoint = self.newest()
        assert checkpoint is not None
        read_manifest(checkpoint)
        parts, full = [], False
        for path in replay_snapshots(checkpoint):
            with h5py.File(path) as file:
                parts.append(stamps_of(file["columns/observation"][: int(file.attrs["size"])]))
                full |= int(file.attrs["size"]) < int(file.attrs["inserted"])
        stamps = np.concatenate(parts)
        check_stamps(stamps, complete=not full)
        return len(stamps)


def parent(pid: int) -> int:
    """Process id of the parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _client(port: int) -> Replay:
    return connect([f"127.0.0.1:{port}"], transport="grpc", prefetch=0, timeout_s=_ASK_S)


def _listening(pid: int) -> Iterator[int]:
    """Ports on which a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link)):
                inodes.add(found[1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                yield int(fields[1].rpartition(":")[2], 16)
