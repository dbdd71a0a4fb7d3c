"""Other replay buffers, each in an environment of its own, asked over pipes to measure themselves."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distributed.bench.notebook import Measure
from distributed.bench.workload import ALPHA, BATCH, Workload
from replay_server.errors import ConfigError, WorkerDied

PROGRAMS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
_SLOWEST = 20.0
_ANSWER_S = 60.0
_READY_S = 120.0
_STOP_S = 10.0
_NOT_PEERS = ("peer", "_learning")  # what they share, and those that train


def peers_from(arguments: Sequence[str]) -> dict[str, Path]:
    """NAME=PYTHON of each peer, checked.

    Raises:
        ConfigError: no such peer, or no such program.
    """
    peers: dict[str, Path] = {}
    known = sorted(path.stem for path in PROGRAMS.glob("*.py") if not path.stem.endswith(_NOT_PEERS))
    for argument in arguments:
        name, equals, python = argument.partition("=")
        if not known:
            raise ConfigError(f"--peer: the programs of peers are in a checkout of headrace, and not in {PROGRAMS}")
        if name not in known or not equals:
            raise ConfigError(f"--peer: {argument}: must be NAME=PYTHON, NAME one of {', '.join(known)}")
        if name in peers:
            raise ConfigError(f"--peer: {name}: given twice; give it once")
        if not os.access(python, os.X_OK) or not Path(python).is_file():
            raise ConfigError(f"--peer: {name}: {python}: no such program; benchmarks/README.md says how to make one")
        peers[name] = Path(python).absolute()
    return peers


def workload_settings(work: Workload, fill_seconds: float) -> dict[str, Any]:
    """What a replay buffer has to know; filled for so long at most, it may hold fewer than `work.records`."""
    return {
        "dim": int(work.name),
        "records": work.records,
        "batch": BATCH,
        "chunk": work.chunk,
        "alpha": ALPHA,
        "fill_seconds": fill_seconds,
        "seed": work.seed,
    }


class PeerProcess:
    """One peer, ready. A context manager: ends it.

    Args:
        name: of its program.
        python: the interpreter of its environment.
        settings: its one argument.
        start_seconds: how long it may take to be ready, beside what any program takes.

    Raises:
        WorkerDied: it could not start; the message says why.
    """

    def __init__(self, name: str, python: Path, settings: Mapping[str, Any], start_seconds: float) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [python, PROGRAMS / f"{name}.py", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        try:
            self.facts = self._answer(_READY_S + start_seconds)
        except WorkerDied:
            self.close()
            raise

    def measure(self, operation: str) -> Measure:
        """Records a second of one operation."""

        def rate(seconds: float) -> float:
            for share in (0.2, 1.0):  # a warm-up first
                answer = self.ask(f"{operation} {seconds * share}", _ANSWER_S + _SLOWEST * seconds)
            return float(answer["records"]) / float(answer["seconds"])

        return rate

    def ask(self, line: str, timeout_s: float) -> dict[str, Any]:
        """What it answers to one line; raises WorkerDied with its last words, and when it does not in time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()
        return self._answer(timeout_s)

    def close(self) -> None:
        """End it, by force after ten seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(_STOP_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line it prints; raises WorkerDied with its last words."""
        assert self._process.stdout is not None
        descriptor, deadline, line = self._process.stdout.fileno(), time.monotonic() + timeout_s, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                raise WorkerDied(f"{self.name}: no answer within {timeout_s:.0f} s")
            part = os.read(descriptor, 65_536)
            if not part:
                raise WorkerDied(f"{self.name}: {self._last_words()}")
            line += part
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerDied(f"{self.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "ended without a word"
