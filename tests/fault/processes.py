"""Real processes for the fault tests: shards and writers that can be killed, stopped and started again."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fault.records import SPEC_DOCUMENT

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
_START_S = 60.0
_END_S = 30.0


def free_port() -> int:
    """A port below the range clients are given their ports from, so that a shard can come back to it."""
    for port in _candidates():
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


def _candidates() -> list[int]:
    start = 20_000 + (os.getpid() * 37 + time.monotonic_ns()) % 10_000
    return list(range(start, start + 200))


class ShardProcess:
    """`headrace serve-replay` on one port and one directory, started as often as needed.

    Args:
        directory: for the config, its journal and snapshots.
        settings: of `ShardConfig`, beside the spec and the directory.
        prefix: what the command runs under, for example `ip netns exec NAME`.
    """

    def __init__(
        self, directory: Path, settings: dict[str, Any], prefix: Sequence[str] = (), flags: Sequence[str] = ()
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.address = str(settings.get("address", f"127.0.0.1:{free_port()}"))
        self.config = directory / "shard.yaml"
        self.errors = directory / "stderr.txt"
        document = {"spec": SPEC_DOCUMENT, "capacity": 200_000, "directory": str(directory), **settings}
        self.config.write_text(yaml.safe_dump({**document, "address": self.address}))
        self._prefix, self._flags = list(prefix), list(flags)
        self.process: subprocess.Popen[str] | None = None
        self.line = ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self, *flags: str) -> subprocess.Popen[str]:
        """Start the process without waiting for anything."""
        command = [sys.executable, "-m", "headrace", "serve-replay", str(self.config), *self._flags, *flags]
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                [*self._prefix, *command],
                cwd=self.directory,
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return self.process

    def start(self, *flags: str) -> ShardProcess:
        """Start and wait until it serves."""
        process = self.launch(*flags)
        assert process.stdout is not None
        self.line = ""
        deadline = time.monotonic() + _START_S
        while not self.line.startswith("serving replay at"):
            ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0.0))
            self.line = process.stdout.readline() if ready else ""
            if not self.line:
                self.end()
                raise AssertionError(f"the shard did not start: {self.errors.read_text()[-2000:]}")
        return self

    def run_to_end(self, *flags: str) -> tuple[int, str]:
        """Start, expect it to end by itself; exit code and what it wrote to standard error."""
        before = self.errors.stat().st_size if self.errors.exists() else 0
        code = self.launch(*flags).wait(_START_S)
        assert self.process is not None and self.process.stdout is not None
        self.process.stdout.close()
        return code, self.errors.read_bytes()[before:].decode()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_END_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def end(self) -> None:
        """Leave nothing behind, in whatever state it is."""
        if self.process is not None:
            self.kill()


class ClientProcess:
    """A program of this package over a history file: `writer_process` or `reader_process`.

    Args:
        program: its name.
        history: the file it appends to.
        settings: of the program, beside the history.
        prefix: as of `ShardProcess`.
    """

    def __init__(self, program: str, history: Path, settings: dict[str, Any], prefix: Sequence[str] = ()) -> None:
        self.history = history
        self.errors = history.with_suffix(".stderr.txt")
        arguments = json.dumps({"history": str(history), **settings})
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", f"fault.{program}", arguments],
                cwd=history.parent,
                env=ENVIRONMENT,
                stderr=errors,
            )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its whole lines so far."""
        if not self.history.exists():
            return []
        return [json.loads(line) for line in self.history.read_bytes().split(b"\n")[:-1]]

    def more_lines(self, lines: int) -> None:
        """Until the history has so many lines more than now."""
        self.wait_for_lines(len(self.lines) + lines)

    def wait_for_lines(self, lines: int) -> None:
        """Until the history has so many lines."""
        deadline = time.monotonic() + _START_S
        while not (self.history.exists() and self.history.read_bytes().count(b"\n") >= lines):
            assert self.process.poll() is None, f"the client ended: {self.errors.read_text()[-2000:]}"
            assert time.monotonic() < deadline, "the client does not get on"
            time.sleep(0.002)

    def finish(self) -> None:
        """Ask it to flush and end, and see that it did."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(_START_S)
        assert code == 0, f"the client ended with {code}: {self.errors.read_text()[-2000:]}"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_END_S)
