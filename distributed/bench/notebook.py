"""Where measurements are written down: figures, and the reason where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from distributed.bench.figure import Figure
from distributed.bench.rows import Row
from replay_server.errors import HeadraceError

Measure = Callable[[float], float]
"""Measures for about so many seconds and returns a rate."""


class Progress(Protocol):
    """Shows what is being measured."""

    def show(self, text: str) -> None: ...


class Notebook:
    """The figures of one run, by name.

    Args:
        wanted: rows that were asked for.
        repetitions: samples of each figure.
        seconds: how long one sample takes.
        progress: told what is going on.
    """

    def __init__(self, wanted: Iterable[Row], repetitions: int, seconds: float, progress: Progress) -> None:
        self.wanted = {row.name for row in wanted}
        self.repetitions = repetitions
        self.seconds = seconds
        self.figures: dict[str, Figure] = {}
        self.missing: dict[str, str] = {}
        self.details: dict[str, dict[str, Any]] = {}
        self.progress = progress

    def wants(self, *names: str) -> list[str]:
        """Those of the rows that were asked for."""
        return [name for name in names if name in self.wanted]

    def write(self, name: str, figure: Figure) -> None:
        self.figures[name] = figure

    def miss(self, name: str, error: Exception | str) -> None:
        """Write down why there is no figure; the first reason stays."""
        if isinstance(error, Exception) and not isinstance(error, HeadraceError):
            error = f"{type(error).__name__}: {error}"
        self.missing.setdefault(name, " ".join(str(error).split())[:300])

    def detail(self, name: str, **values: Any) -> None:
        """What a reader of the raw figures may want to know about one of them."""
        self.details.setdefault(name, {}).update(values)

    @contextmanager
    def trying(self, names: Iterable[str]) -> Iterator[None]:
        """An error inside is the reason why the named figures are missing, and no more."""
        try:
            yield
        except Exception as error:  # whatever a peer, a disk or an unfinished feature throws at us
            for name in names:
                if name not in self.figures:
                    self.miss(name, error)

    def alternate(self, contenders: Mapping[str, Measure], repetitions: int | None = None) -> None:
        """Measure in turn, so that whatever else the machine does meets all of them alike."""
        count = repetitions or self.repetitions
        samples: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(count):
            for name, measure in contenders.items():
                if name in self.missing:
                    continue
                with self.trying([name]):
                    samples[name].append(measure(self.seconds))
                    self.progress.show(f"{name} {turn + 1}/{count}: {samples[name][-1]:,.4g}")
        for name, taken in samples.items():
            if len(taken) == count:
                self.write(name, Figure.of(taken))


def rate(step: Callable[[], int], seconds: float, finish: Callable[[], object] | None = None) -> float:
    """What `step` handles a second, after a warm-up of a fifth of the time; `finish` belongs to the time."""
    end = time.perf_counter() + seconds / 5
    while time.perf_counter() < end:
        step()
    if finish is not None:
        finish()
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        done += step()
    if finish is not None:
        finish()
    return done / (time.perf_counter() - begin)
