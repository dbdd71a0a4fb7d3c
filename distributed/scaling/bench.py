"""`headrace bench scaling`: calibrates the model, holds it against real runs, or predicts larger ones."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from distributed.bench.json_report import check_writable
from distributed.bench.machine import Machine
from distributed.config import ExperimentConfig
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.raw_config import Override
from distributed.scaling.calibrate import calibrate
from distributed.scaling.measured import Point, measure_point
from distributed.scaling.model import simulate
from distributed.scaling.prediction import Plan, predict
from distributed.scaling.report import Check, ScalingReport, tables
from distributed.scaling.system import Machines, ServiceTimes, System, sized
from distributed.stages import Stages
from replay_server.errors import ConfigError

POINTS = (1, 2, 3, 4)
SIZES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
_NEARLY_ALL = 0.95
_KINDS = ("head", "actor", "shard")


@dataclass(frozen=True)
class ScalingBench:
    """One run of the command.

    Args:
        config: a shipped config or a file.
        simulate: predict `actors` on a cluster; else run them for real on this machine and hold the model against it.
        actors: sizes.
        shards: of every size, at most as many as actors; None for the config's.
        calibration: what an earlier run of this command wrote, for its service times; None to measure them.
        learner_times: predictions have a learner so many times as fast as the measured one.
        step_s: predictions have vector steps of so many seconds; None for the measured.
        prices: of an hour of a node of a kind, `KIND=PRICE`.
        settings: of the config, other than it has them.
        quick: short times, to see that everything runs.
        json: file for the raw figures.
    """

    config: str
    simulate: bool = False
    actors: tuple[int, ...] = ()
    shards: int | None = None
    calibration: Path | None = None
    learner_times: float = 1.0
    step_s: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    settings: tuple[Override, ...] = ()
    quick: bool = False
    json: Path | None = None

    def run(self) -> int:
        """Do it, print tables, write the file.

        Raises:
            ConfigError: an option or the config is wrong.
            WorkerDied: a real run failed.
        """
        check_writable(self.json)
        path = find_config(self.config)
        config = load_experiment(path, self.settings).config
        if self.shards is not None:
            config = replace(config, replay=replace(config.replay, shards=min(self.shards, config.actors.count)))
        system = System.of(config, Machines())
        earlier = None if self.calibration is None else ScalingReport.read(self.calibration)
        if earlier is not None and earlier.config != path.stem:
            raise ConfigError(f"--calibration: {self.calibration}: is of {earlier.config}, not of {path.stem}")
        stages, machine, began = Stages("bench scaling"), Machine.here(), time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        times = earlier.times if earlier is not None else calibrate(config, system, 0.1 if self.quick else 2.0, stages)
        settings = {override.flag: str(override.value) for override in self.settings}
        report = ScalingReport(path.stem, machine, began, self.quick, times, settings=settings)
        report = self._predicted(report, config, stages) if self.simulate else self._checked(report, config, stages)
        print(tables(report), end="")
        if self.json is not None:
            report.write(self.json)
        return 0

    def _checked(self, report: ScalingReport, config: ExperimentConfig, stages: Stages) -> ScalingReport:
        seconds = 2.0 if self.quick else 10.0
        points = []
        for actors in self.actors or POINTS:
            with stages.stage(f"a real run with {actors} actors"):
                points.append(measure_point(config, actors, seconds))
        times = fitted(config, report.times, points[0], seconds)
        checks = tuple(check(config, times, point, seconds) for point in points)
        return replace(report, times=times, checks=checks)

    def _predicted(self, report: ScalingReport, config: ExperimentConfig, stages: Stages) -> ScalingReport:
        machines = Machines()
        times = replace(report.times, update_s=report.times.update_s / self.learner_times)
        if self.step_s is not None:
            times = replace(times, vector_step_s=self.step_s)
        predictions = []
        for actors in self.actors or SIZES:
            with stages.stage(f"simulating {actors:,} actors"):
                plan = Plan(sized(config, actors, self.shards or config.replay.shards), times, machines)
                predictions.append(predict(plan, 1.0 if self.quick else 10.0, self.prices))
        return replace(
            report,
            predictions=tuple(predictions),
            machines=machines,
            prices=dict(self.prices),
            learner_times=self.learner_times,
            step_s=self.step_s,
        )


def check(config: ExperimentConfig, times: ServiceTimes, point: Point, seconds: float) -> Check:
    """A real run beside the simulation of it, on as many processors as others left."""
    cores = max((os.cpu_count() or 1) - point.cores_others, 0.1)
    system = System.of(sized(config, point.actors, point.shards), Machines(one=True, head_cores=cores))
    return Check(point, simulate(system, times, seconds))


def fitted(config: ExperimentConfig, times: ServiceTimes, first: Point, seconds: float) -> ServiceTimes:
    """With what the learner's parts cost beyond themselves in a real run, if that is bound by the learner."""
    said = check(config, times, first, seconds).simulated
    if said.busy["learner"] < _NEARLY_ALL or not 0.0 < first.updates_per_second < said.updates_per_second:
        return times
    return replace(times, together_s=1.0 / first.updates_per_second - 1.0 / said.updates_per_second)


def prices_from(given: list[str]) -> dict[str, float]:
    """`KIND=PRICE` each.

    Raises:
        ConfigError: another kind, or no price.
    """
    prices = {}
    for text in given:
        kind, _, price = text.partition("=")
        if kind not in _KINDS:
            raise ConfigError(f"--price: {text}: give KIND=PRICE with KIND one of {', '.join(_KINDS)}")
        prices[kind] = positive("price", price)
    return prices


def positive(option: str, text: str) -> float:
    """A number above zero.

    Raises:
        ConfigError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise ConfigError(f"--{option}: must be a number above 0, not {text!r}")
    return value


def sizes_from(text: str) -> tuple[int, ...]:
    """`10,100,1000`, in growing order.

    Raises:
        ConfigError: something else.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"--actors: must be whole numbers >= 1 with commas between, not {text!r}")
    return tuple(sorted({int(part) for part in parts}))
