"""The ladder of an environment with our policy in its place: measured, printed, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.ladder import Ladder, LadderRow
from actors.seeds import SeedFamily, derive
from distributed.config import ExperimentConfig
from distributed.stages import Stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _BASELINE, _BOUND = "#1f4e8c", "#b9c7d9", "#d98c3f"
_DPI = 110


def measure_ladder(config: ExperimentConfig, ours: LadderRow, stages: Stages, *, bounds: bool) -> list[LadderRow]:
    """The environment's baselines on the final evaluation's own episodes and our policy, worst first.

    Args:
        config: the experiment.
        ours: our policy's row.
        stages: says what is being measured.
        bounds: work out the environment's bounds as well, which can take longer than everything else.

    Returns:
        Empty where the environment has neither.
    """
    seed = derive(config.run.seed, family=SeedFamily.FINAL)
    rows = []
    with Ladder(config.environment, ours.episodes, seed) as ladder:
        for name in ladder.baselines:
            with stages.stage(f"measuring {name}"):
                rows.append(ladder.baseline(name))
        for name in ladder.bounds if bounds else ():
            with stages.stage(f"working out {name}"):
                rows.append(ladder.bound(name))
    return sorted([*rows, ours], key=lambda row: row.mean) if rows else []


def print_ladder(rows: list[LadderRow], ours: LadderRow) -> None:
    """A table of policies and bounds from the worst to the best, with a column a metric."""
    if not rows:
        return
    width = max(len(row.name) for row in rows)
    metrics = {name: max(len(name), 16) for row in rows for name in row.metrics}
    heads = "".join(f"  {name:>{wide}}" for name, wide in metrics.items())
    print(f"\n{'policy':<{width}}  mean return  std error  episodes{heads}")
    for row in rows:
        mark = "  <--" if row is ours else "  bound" if row.bound else ""
        cells = "".join(f"  {_cell(row, name):>{wide}}" for name, wide in metrics.items())
        episodes = f"{row.episodes:,}" if row.episodes else "-"
        print(f"{row.name:<{width}}  {row.mean:>11.1f}  {row.sem:>9.1f}  {episodes:>8}{cells}{mark}".rstrip())
    print()


def as_json(rows: list[LadderRow]) -> list[dict[str, Any]]:
    """The rows as JSON objects."""
    return [
        {
            "name": row.name,
            "mean": row.mean,
            "sem": row.sem,
            "episodes": row.episodes,
            "bound": row.bound,
            "metrics": {name: {"mean": m.mean, "sem": m.sem} for name, m in row.metrics.items()},
        }
        for row in rows
    ]


def draw_ladder(rows: list[LadderRow], ours: LadderRow, title: str, path: Path) -> None:
    """Write the ladder as a PNG: a bar a row with its standard error, the worst at the top.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # an extra of its own, and slow to load

    figure = Figure(figsize=(7.2, 0.9 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = _OURS if row is ours else _BOUND if row.bound else _BASELINE
        axes.barh(place, row.mean, xerr=row.sem, color=colour, hatch="//" if row.bound else "", ecolor="#333333")
    _label(axes, rows)
    axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=_DPI)


def _label(axes: Axes, rows: list[LadderRow]) -> None:
    names = [f"{row.name} (bound)" if row.bound else row.name for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    for place, row in enumerate(rows):
        spread = f" ± {row.sem:.1f}" if row.episodes else ""
        axes.annotate(
            f"{row.mean:.1f}{spread}",
            (max(row.mean + row.sem, 0.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.margins(x=0.15)
    axes.set_xlabel("mean return of an episode")
    axes.spines[["top", "right"]].set_visible(False)


def _cell(row: LadderRow, name: str) -> str:
    if name not in row.metrics:
        return "-"
    estimate = row.metrics[name]
    return f"{estimate.mean:.4g} +- {estimate.sem:.2g}"
