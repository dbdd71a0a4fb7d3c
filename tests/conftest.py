"""Shared by all tests: the processes of a run, found by an environment variable they inherit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tests share the machine; many threads on small networks only get in each other's way

ROOT = Path(__file__).resolve().parent.parent
_MARK = "HEADRACE_TEST_RUN"
_AGENTS_OF_RAY = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""After a killed driver these try for a minute to tell Ray's dead control service of it; they hold nothing."""


class CommandLine:
    """One `headrace` process started by a test, and everything it starts in turn."""

    def __init__(self, arguments: list[str], cwd: Path) -> None:
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace", *arguments],
            cwd=cwd,
            env={**os.environ, _MARK: self._mark, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, timeout_s: float) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        output, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output, errors

    def descendants(self, title: str = "") -> list[int]:
        """Process ids of everything the command started and that still runs, with `title` in the command line."""
        wanted = f"{_MARK}={self._mark}".encode()
        found = []
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit() or int(directory.name) == self.process.pid:
                continue
            try:
                environment = (directory / "environ").read_bytes()
                command = (directory / "cmdline").read_bytes()
            except OSError:
                continue
            if wanted in environment and title.encode() in command:
                found.append(int(directory.name))
        return found

    def wait_until_gone(self, seconds: float = 15.0, *, but_agents: bool = False) -> None:
        """Wait until nothing runs of what the command started, or nothing but Ray's agents."""
        deadline = time.monotonic() + seconds
        but = _AGENTS_OF_RAY if but_agents else ()
        while left := self._left(but):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)

    def _left(self, but: tuple[str, ...]) -> dict[int, str]:
        running = {pid: _description(pid) for pid in self.descendants()}
        return {pid: text for pid, text in running.items() if text and not text.startswith(but)}

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait for something the command brings about; fails when the command ends before."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.finish(5.0)}")
            if time.monotonic() > deadline:
                raise AssertionError("the condition did not come true in time")
            time.sleep(0.1)

    def kill(self) -> None:
        """End everything by force."""
        for pid in [self.process.pid, *self.descendants()]:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.process.communicate()


def _description(pid: int) -> str:
    """What a process is and what it does, for the message of a failed test; "" for one that has just ended."""
    try:
        process = Path(f"/proc/{pid}")
        state = [line for line in (process / "status").read_text().splitlines() if line.startswith(("State", "PPid"))]
        return f"{(process / 'cmdline').read_bytes().decode()[:200]} {state}"
    except OSError:
        return ""


@pytest.fixture
def headrace(tmp_path: Path) -> Iterator[Callable[..., CommandLine]]:
    """Starts `headrace` commands in a temporary directory and leaves none behind."""
    started: list[CommandLine] = []

    def start(*arguments: str) -> CommandLine:
        started.append(CommandLine(list(arguments), tmp_path))
        return started[-1]

    yield start
    for command in started:
        command.kill()
