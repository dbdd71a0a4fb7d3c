"""Real runs of a config with so many actors, for the model to be held against."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from distributed.child_run import ENDLESS, ChildRun, child_run
from distributed.config import ExperimentConfig
from distributed.scaling.system import sized
from replay_server.errors import WorkerDied

_LOOK_S = 0.25
_START_S = 300.0
_ROWS = 10  # of metrics, in the place of one


class Point(Struct, frozen=True):
    """One real run after its warm-up; `cores_ours` and `cores_others` are processors in use, ours and all others'.

    `staleness` is None where no actor that had weights reported.
    """

    actors: int
    shards: int
    env_steps_per_second: float
    updates_per_second: float
    actors_blocked: float
    learner_waiting: float
    staleness: float | None
    seconds: float
    cores_ours: float
    cores_others: float


def measure_point(config: ExperimentConfig, actors: int, seconds: float) -> Point:
    """A run of `headrace train` without evaluations and checkpoints; a third of `seconds` before them is warm-up.

    Raises:
        WorkerDied: it failed, or was not under way within minutes.
        ConfigError: the config can't have so many actors.
    """
    config = sized(config, actors, config.replay.shards)
    run = replace(
        config.run,
        total_env_steps=ENDLESS,
        metrics_every_env_steps=max(config.run.metrics_every_env_steps // _ROWS, 1),
    )
    with child_run(replace(config, run=run), _START_S + 2.0 * seconds) as child:
        rows, cores_ours, cores_others = _watch(child, seconds / 3, seconds)
    return _point(config, rows, cores_ours, cores_others)


def _watch(child: ChildRun, warm_s: float, seconds: float) -> tuple[list[dict[str, Any]], float, float]:
    """Rows of metrics of the time that counts, and the processors in use meanwhile, ours and others'."""
    usage, began, give_up = _Usage(child.process.pid), 0.0, time.monotonic() + _START_S
    while time.monotonic() < give_up + seconds:
        time.sleep(_LOOK_S)
        rows = _rows(child.files.metrics)
        if child.ended():
            raise WorkerDied("a run ended before it was measured")
        now = rows[-1]["time"]["seconds"] if rows else 0.0
        usage.look()
        if not began and now >= warm_s:
            began = now
            usage.begin()
        if began and now >= began + seconds:
            return [row for row in rows if row["time"]["seconds"] >= began], *usage.cores()
    raise WorkerDied(f"a run was not measured within {_START_S + seconds:g} s; take a smaller config")


def _rows(metrics: Path) -> list[dict[str, Any]]:
    if not metrics.exists():
        return []
    return [json.loads(line) for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _point(config: ExperimentConfig, rows: list[dict[str, Any]], cores_ours: float, cores_others: float) -> Point:
    first, last = rows[0], rows[-1]
    seconds = last["time"]["seconds"] - first["time"]["seconds"]
    times = [row["time"] for row in rows]
    spans = np.diff([time["seconds"] for time in times])  # a row shorter than a report may have a whole one in it
    return Point(
        actors=config.actors.count,
        shards=config.replay.shards,
        env_steps_per_second=(last["env_steps"] - first["env_steps"]) / seconds,
        updates_per_second=(last["updates"] - first["updates"]) / seconds,
        actors_blocked=float(np.average([time["actors_blocked"] for time in times[1:]], weights=spans)),
        learner_waiting=float(np.average([time["learner_waiting"] for time in times[1:]], weights=spans)),
        staleness=_staleness(rows[1:], spans),
        seconds=seconds,
        cores_ours=cores_ours,
        cores_others=cores_others,
    )


def _staleness(rows: list[dict[str, Any]], spans: NDArray[np.float64]) -> float | None:
    """Of the rows with a report of an actor that had weights, by their seconds."""
    there = np.array([row["staleness"] is not None for row in rows])
    lags = [row["staleness"] for row in rows if row["staleness"] is not None]
    return float(np.average(lags, weights=spans[there])) if lags else None


class _Usage:
    """Processors that a process with all that descends from it uses, and that all others use."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ours: dict[int, float] = {}  # ended ones too, as last seen
        self.begin()

    def look(self) -> None:
        self._ours |= dict(_descendants(self._pid))

    def begin(self) -> None:
        """What is used counts from now on."""
        self._begin, self._before, self._all_before = time.monotonic(), sum(self._ours.values()), _machine_s()

    def cores(self) -> tuple[float, float]:
        seconds = time.monotonic() - self._begin
        ours = (sum(self._ours.values()) - self._before) / seconds
        return ours, max((_machine_s() - self._all_before) / seconds - ours, 0.0)


def _descendants(root: int) -> Iterator[tuple[int, float]]:
    """(process, its processor seconds) of a process and all below it."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / tick
    for pid in parents:
        above: int | None = pid
        while above is not None and above != root:
            above = parents.get(above)
        if above == root:
            yield pid, seconds[pid]


def _machine_s() -> float:
    """Processor seconds of the machine that were not idle, since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
