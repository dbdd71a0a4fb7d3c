"""What `headrace bench scaling` found: as JSON, and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

import msgspec
from msgspec import Struct

from distributed.bench.json_report import JsonReport
from distributed.bench.machine import Machine
from distributed.bench.markdown import table
from distributed.scaling.measured import Point
from distributed.scaling.model import Outcome
from distributed.scaling.prediction import Prediction, saturation
from distributed.scaling.system import Machines, ServiceTimes


class Check(Struct, frozen=True):
    """A real run, and what the model says of it on the processors that others left it."""

    measured: Point
    simulated: Outcome

    @property
    def error(self) -> float:
        """Of the environment steps a second: simulated / measured - 1."""
        return self.simulated.env_steps_per_second / self.measured.env_steps_per_second - 1.0


class ScalingReport(JsonReport, frozen=True):
    """Everything a run found; `began` is UTC. Without real runs `checks` is empty, without --simulate the others are.

    Attributes:
        times: as measured.
        learner_times, step_s: what predictions put in the place of what was measured: a learner so many times as
            fast, seconds of a vector step (None: as measured).
        settings: of the config, other than it has them, by option.
    """

    origin: ClassVar[str] = "headrace bench scaling"

    config: str
    machine: Machine
    began: str
    quick: bool
    times: ServiceTimes
    checks: tuple[Check, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    machines: Machines | None = None
    prices: dict[str, float] = msgspec.field(default_factory=dict)
    learner_times: float = 1.0
    step_s: float | None = None
    settings: dict[str, str] = msgspec.field(default_factory=dict)


def tables(report: ScalingReport) -> str:
    """What there is, as Markdown."""
    parts = [_times(report.times)]
    if report.checks:
        parts.append(_checks(report.checks, fitted=report.times.together_s > 0.0))
    if report.predictions:
        parts.append(_predictions(report))
    return "\n".join(parts)


def _times(times: ServiceTimes) -> str:
    rows = []
    for name, value in msgspec.to_builtins(times).items():
        if isinstance(value, dict):
            text = f"{1e6 * value['call']:,.0f} us + {1e6 * value['record']:.3g} us a record"
        else:
            text = f"{1e6 * value:,.0f} us" if name.endswith("_s") else f"{value:,} B"
        rows.append((name.removesuffix("_s").replace("_", " "), text))
    return table(("service time", "one processor"), rows)


def _checks(checks: Sequence[Check], *, fitted: bool) -> str:
    head = ("actors", "shards", "measured steps/s", "simulated", "error", "updates/s", "simulated", "others used")
    rows = [
        (
            f"{check.measured.actors}",
            f"{check.measured.shards}",
            f"{check.measured.env_steps_per_second:,.0f}",
            f"{check.simulated.env_steps_per_second:,.0f}",
            f"{check.error:+.0%}",
            f"{check.measured.updates_per_second:,.0f}",
            f"{check.simulated.updates_per_second:,.0f}",
            f"{check.measured.cores_others:.2f} cores",
        )
        for check in checks
    ]
    others = checks[1:] if fitted else checks
    said = "The first is what `together` was fitted to. " if fitted else ""
    if others:
        said += f"Mean error{' of the others' if fitted else ''} {fmean(abs(check.error) for check in others):.0%}."
    return table(head, rows) + f"\n{said.strip()}\n"


def _predictions(report: ScalingReport) -> str:
    head = ["actors", "shards", "nodes", "steps/s", "updates/s", "learner", "staleness", "bound by", "what to add"]
    head += ["node hours for 1e9 steps"] + (["price"] if report.prices else [])
    rows = [_row(prediction) for prediction in report.predictions]
    full = saturation(list(report.predictions))
    text = table(head, rows)
    if full is not None:
        size = f"{full.actors:,} actors ({full.outcome.env_steps_per_second:,.0f} steps/s)"
        more = (
            f"Not saturated at {size}."
            if full.bound_by == "actors"
            else f"Saturates at {size}, bound by {full.bound_by}."
        )
        text += f"\n{more}\n"
    return text + _assumed(report)


def _row(prediction: Prediction) -> tuple[str, ...]:
    outcome, gain = prediction.outcome, prediction.gain
    size = (f"{prediction.actors:,}", f"{prediction.shards:,}", f"{sum(prediction.nodes.values()):,}")
    add = prediction.add if gain is None else f"{prediction.add}: x {gain:.2f}"
    if prediction.node_hours is None:
        return *size, "not settled", "-", "-", "-", prediction.bound_by, add, "-"
    cells = (
        *size,
        f"{outcome.env_steps_per_second:,.0f}",
        f"{outcome.updates_per_second:,.1f}",
        f"{outcome.busy['learner']:.0%}",
        "grows" if outcome.staleness is None else f"{outcome.staleness:.1f}",
        prediction.bound_by,
        add,
        f"{prediction.node_hours:,.0f}",
    )
    return cells if prediction.price is None else (*cells, f"{prediction.price:,.0f}")


def _assumed(report: ScalingReport) -> str:
    machines = report.machines
    assert machines is not None
    changed = f", a learner {report.learner_times:g} times as fast" if report.learner_times != 1.0 else ""
    changed += f", {1e3 * report.step_s:g} ms a vector step" if report.step_s is not None else ""
    changed += "".join(f", {option} {value}" for option, value in report.settings.items())
    return (
        f"Assumed: a head of {machines.head_cores:g} cores, actors on nodes of {machines.actor_cores} cores with one "
        f"each, {machines.shards_per_node} shards on a node of {machines.shard_cores}, "
        f"{8e-9 * machines.bytes_per_s:g} Gbit/s, {1e6 * machines.latency_s:g} us{changed}.\n"
    )
