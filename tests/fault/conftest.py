"""Shared by the fault tests: how much to do, where the figures go, and processes that are always cleaned up.

`HEADRACE_SOAK=FILE.json` asks for the full counts and writes what was done into FILE.json (`make soak`); with it
`HEADRACE_ROUNDS=N` asks for N rounds of killed processes in place of 20.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fault.processes import ROOT, ClientProcess, ShardProcess

_SOAK = os.environ.get("HEADRACE_SOAK")


class Soak:
    """How much a test does, and what it did.

    `full`: with the full counts of `make soak`. `done` collects one entry a test.
    """

    def __init__(self) -> None:
        self.full = _SOAK is not None
        self.done: dict[str, dict[str, Any]] = {}

    @property
    def rounds(self) -> int:
        """In which every kind of process is killed, with the full counts."""
        return int(os.environ.get("HEADRACE_ROUNDS", "20"))

    def count(self, usual: int, full: int) -> int:
        """How many seeds, seconds or the like."""
        return full if self.full else usual


class Figures:
    """What one test tells the soak's report: `figures.add(kills=10, acknowledged=312)` sums numbers up."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self._entry = entry

    def add(self, **numbers: float) -> None:
        for name, number in numbers.items():
            self._entry[name] = self._entry.get(name, 0) + number

    def note(self, **facts: Any) -> None:
        self._entry.update(facts)

    def seeds(self, first: int, count: int = 1) -> None:
        """Printed with a failure, and noted."""
        print(f"seeds {first} .. {first + count - 1}")
        self.note(first_seed=first, seeds=count)


@pytest.fixture(scope="session")
def soak() -> Iterator[Soak]:
    """The counts; at the end of the session the report is written."""
    begin = time.monotonic()
    yield (run := Soak())
    if _SOAK is not None:
        git = ["git", "-C", str(ROOT)]
        revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.splitlines()
        document = {
            "git": revision,
            "uncommitted": changed,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
            "seconds": round(time.monotonic() - begin, 1),
            "failures": sum(entry.get("outcome") == "failed" for entry in run.done.values()),
            "tests": run.done,
        }
        report = ROOT / _SOAK
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


@pytest.fixture(autouse=True)
def figures(request: pytest.FixtureRequest, soak: Soak) -> Iterator[Figures]:
    """The entry of this test in the report; its outcome and seconds are filled in here."""
    begin = time.monotonic()
    entry: dict[str, Any] = {"outcome": "failed"}
    name = request.node.nodeid.partition("tests/fault/")[2] or request.node.nodeid
    soak.done[name] = entry
    request.node.stash[_ENTRY] = entry
    yield Figures(entry)
    entry["seconds"] = round(time.monotonic() - begin, 2)


_ENTRY = pytest.StashKey[dict[str, Any]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if call.when == "call" and (entry := item.stash.get(_ENTRY, None)) is not None:
        entry["outcome"] = report.outcome
        if report.skipped:
            entry["reason"] = str(report.longrepr[2])
        elif report.failed:
            entry["message"] = str(call.excinfo.value)[:2000] if call.excinfo else ""
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With the full counts a test may take an hour."""
    if _SOAK is not None:
        for item in items:
            if "fault" in item.path.parts:
                item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture
def start_shard(tmp_path: Path) -> Iterator[Callable[..., ShardProcess]]:
    """`start_shard(**settings)` starts a shard in a directory of its own; all are ended with the test."""
    started: list[ShardProcess] = []

    def start(
        directory: Path | None = None, prefix: tuple[str, ...] = (), flags: tuple[str, ...] = (), **settings: Any
    ) -> ShardProcess:
        place = directory or tmp_path / f"shard-{len(started)}"
        settings.setdefault("shard_index", len(started))
        started.append(ShardProcess(place, settings, prefix, flags))
        return started[-1].start()

    yield start
    for shard in started:
        shard.end()


@pytest.fixture
def start_client(tmp_path: Path) -> Iterator[Callable[..., ClientProcess]]:
    """`start_client(program, addresses, **settings)` starts a client with a history of its own."""
    started: list[ClientProcess] = []

    def start(program: str, addresses: list[str], prefix: tuple[str, ...] = (), **settings: Any) -> ClientProcess:
        history = tmp_path / f"history-{len(started)}.jsonl"
        started.append(ClientProcess(program, history, {"addresses": addresses, **settings}, prefix))
        return started[-1]

    yield start
    for client in started:
        client.kill()


@pytest.fixture
def start_writer(start_client: Callable[..., ClientProcess]) -> Callable[..., ClientProcess]:
    """`start_writer(addresses, writer_id, **settings)`."""

    def start(addresses: list[str], writer_id: int, **settings: Any) -> ClientProcess:
        return start_client("writer_process", addresses, writer_id=writer_id, **settings)

    return start
