"""Draws what `headrace bench scaling --simulate --json FILE` predicted, or the real runs that it was held against.

python benchmarks/scaling.py benchmarks/results/scaling.json docs/images/scaling.png

Predictions of several files are drawn together; sizes that have not settled are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from drawing import DARK, LIGHT, WARM, plain, save
from matplotlib import pyplot
from matplotlib.axes import Axes
from msgspec.structs import replace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from distributed.scaling.report import ScalingReport  # noqa: E402


def draw(report: ScalingReport, path: Path) -> None:
    """Environment steps a second over actors; below predictions, how busy the parts are."""
    count = 2 if report.predictions else 1
    figure, axes = pyplot.subplots(1, count, figsize=(5.4 * count, 3.6), squeeze=False, layout="constrained")
    _rates(axes[0][0], report)
    if report.predictions:
        _shares(axes[0][1], report)
    figure.suptitle(report.config, fontsize=10)
    save(figure, path)


def _rates(axes: Axes, report: ScalingReport) -> None:
    if report.checks:
        actors = [check.measured.actors for check in report.checks]
        axes.plot(actors, [c.measured.env_steps_per_second for c in report.checks], "o", color=DARK, label="measured")
        axes.plot(actors, [c.simulated.env_steps_per_second for c in report.checks], color=WARM, label="model")
    if report.predictions:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot(
            [p.actors for p in report.predictions],
            [p.outcome.env_steps_per_second for p in report.predictions],
            color=DARK,
            marker=".",
            label="predicted",
        )
        for prediction in report.predictions:
            place = (prediction.actors, prediction.outcome.env_steps_per_second)
            axes.annotate(
                prediction.bound_by, place, xytext=(0, 5), textcoords="offset points", fontsize=7, ha="center"
            )
    axes.set_xlabel("actors")
    axes.set_ylabel("environment steps a second")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)


def _shares(axes: Axes, report: ScalingReport) -> None:
    actors = [prediction.actors for prediction in report.predictions]
    colours = {"learner": DARK, "actors": LIGHT, "shards": WARM, "driver": "#5c9e6f", "store": "#8a6fb0"}
    for part, colour in colours.items():
        axes.plot(actors, [p.outcome.busy[part] for p in report.predictions], color=colour, marker=".", label=part)
    axes.set_xscale("log")
    axes.set_ylim(0.0, 1.05)
    axes.set_xlabel("actors")
    axes.set_ylabel("share of its time at work")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)


def main() -> None:
    """Read reports, write a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="+")
    parser.add_argument("image", type=Path)
    arguments = parser.parse_args()
    arguments.image.parent.mkdir(parents=True, exist_ok=True)
    reports = [ScalingReport.read(file) for file in arguments.reports]
    predictions = tuple(found for report in reports for found in report.predictions if found.outcome.settled)
    draw(replace(reports[0], predictions=predictions), arguments.image)


if __name__ == "__main__":
    main()
