"""What a person sees while a run goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from distributed.rates_window import RatesWindow
from distributed.runtime import Evaluation
from distributed.tally import Tally

_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 5.0
_TROUBLE = ("shard", "disk")  # what nobody waits for in a run that is well


class LiveView:
    """Shows a run's progress; a context manager.

    Args:
        title: the run's name.
        total_env_steps: transitions (updates without actors) the run is to make.
        max_seconds: seconds the run may take, or None.
        clock: monotonic seconds.
        console: where to print; standard error by default.
    """

    def __init__(
        self,
        title: str,
        total_env_steps: int,
        max_seconds: float | None,
        clock: Callable[[], float],
        console: Console | None = None,
    ) -> None:
        self._title = title
        self._total = total_env_steps
        self._max_seconds = max_seconds
        self._clock = clock
        self._console = console if console is not None else Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._next = 0.0
        self._evaluation = "-"
        self._rates = RatesWindow()  # rows of metrics may cover no more than the moment before a checkpoint

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one line above the live table."""
        self._console.print(f"{self._title}: {text}", markup=False, soft_wrap=True)

    def evaluated(self, finished: Evaluation) -> None:
        """Remember the newest evaluation."""
        self._evaluation = f"{finished.result.mean:.1f} (at {finished.env_steps:,})"

    def update(self, tally: Tally, row: dict[str, Any], seconds: float) -> None:
        """Show the newest numbers, as often as a person can read them."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (_REFRESH_SECONDS if self._live is not None else _LINE_SECONDS)
        rates = self._rates.add(now, {"env steps": tally.env_steps, "updates": tally.updates})
        cells = self._cells(tally, row, rates, seconds)
        if self._live is not None:
            self._live.update(_table(self._title, cells), refresh=True)
        else:
            self.say("  ".join(f"{name} {value}" for name, value in cells))

    def _cells(
        self, tally: Tally, row: dict[str, Any], rates: dict[str, float | None], seconds: float
    ) -> list[tuple[str, str]]:
        limit = f" of {self._max_seconds:.0f}" if self._max_seconds else ""
        clock = "updates" if tally.offline else "env steps"
        cells = [(clock, f"{tally.env_steps:,} of {self._total:,}"), ("seconds", f"{seconds:.0f}{limit}")]
        if row:
            time = row["time"]
            shown = ("updates",) if tally.offline else ("env steps", "updates")
            cells += [(f"{name}/s", "-" if (rate := rates[name]) is None else f"{rate:,.0f}") for name in shown]
            cells += [
                ("replay", f"{row['replay']['size']:,}"),
            ]
            if not tally.offline:
                cells += [
                    ("staleness", "-" if row["staleness"] is None else f"{row['staleness']:.1f} versions"),
                    ("train return", "-" if tally.recent_return is None else f"{tally.recent_return:.1f}"),
                ]
            cells += [("evaluation", self._evaluation), ("bound by", time["bound_by"])]
            trouble = [f"{who}: {what}" for who, what in tally.blocked_on.items() if what in _TROUBLE]
            if trouble:
                cells.append(("waits for", ", ".join(trouble)))
            if row["restarts"]:
                cells.append(("restarts", str(row["restarts"])))
        return cells


def _table(title: str, cells: list[tuple[str, str]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in cells:
        table.add_row(name, value)
    return table
