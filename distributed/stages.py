"""What a person sees while a command works through parts of unknown length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Stages:
    """Shows what is being done: with its seconds on a terminal, as a line elsewhere.

    Args:
        command: what lines begin with.
        console: where to print; standard error by default.
    """

    def __init__(self, command: str, console: Console | None = None) -> None:
        self._command = command
        self._console = console if console is not None else Console(stderr=True, highlight=False)

    @contextmanager
    def stage(self, text: str) -> Iterator[None]:
        """While its block runs, `text` is what is being done."""
        if not self._console.is_terminal:
            self.say(f"{text} ...")
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            progress.add_task(f"{self._command}: {text}", total=None)
            yield

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(f"{self._command}: {text}", markup=False, soft_wrap=True)
