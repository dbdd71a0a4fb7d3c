"""Shared by all tests: the processes of a run, found by an environment variable they inherit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.processes import command_line, processes_with

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
        started = [pid for pid in processes_with(_MARK, self._mark) if pid != self.process.pid]
        return [pid for pid in started if title in command_line(pid)]

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

    def wait_for(
        self, condition: Callable[[], Any], timeout_s: float, what: Callable[[], str] = lambda: "the condition"
    ) -> None:
        """Wait for something the command brings about; fails, and says what, when the command ends before."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"{what()}: ended with {self.finish(5.0)}"
            assert time.monotonic() < deadline, f"{what()}: not within {timeout_s:.0f} s"
            time.sleep(0.05)

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
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return f"{command_line(pid)[:200]} {[line for line in status if line.startswith(('State', 'PPid'))]}"


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
