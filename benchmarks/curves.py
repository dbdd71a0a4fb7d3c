"""Draws the learning curves: one PNG a config from what `benchmarks/learning.py` or `offline.py` kept.

    python benchmarks/curves.py --json benchmarks/results/learning.json --images docs/algorithms/images

Every seed's periodic evaluations (thin), their mean where all seeds have been (thick) and the threshold (dashed), over
seconds of training and over environment steps (updates of runs without actors).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from drawing import DARK, LIGHT, plain, save
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

AXES = {"seconds": "seconds of training", "env_steps": "environment steps"}


def mean_curve(curves: list[NDArray[Any]], points: int = 200) -> NDArray[Any]:
    """Mean [points, 2] of piecewise linear curves [n, 2] over the stretch of x that all of them have."""
    x = np.linspace(max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves), points)
    return np.stack([x, np.mean([np.interp(x, curve[:, 0], curve[:, 1]) for curve in curves], axis=0)], axis=1)


def draw(axes: Axes, results: list[dict[str, Any]], key: str, threshold: float) -> None:
    """One panel: return over `seconds` or `env_steps`."""
    curves = []
    for result in results:
        curve = np.array([(row[key], row["mean"]) for row in result["periodic_evaluations"]], dtype=float)
        curves.append(curve[np.argsort(curve[:, 0], kind="stable")])
        axes.plot(*curves[-1].T, color=LIGHT, linewidth=0.9)
    axes.plot(*mean_curve(curves).T, color=DARK, linewidth=2.0, label=f"mean of {len(curves)} seeds")
    axes.axhline(threshold, color="#444444", linewidth=1.0, linestyle="--", label=f"threshold {threshold:g}")
    axes.set_xlabel("updates" if key == "env_steps" and results[0].get("offline") else AXES[key])
    axes.set_xlim(left=0.0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 10_000 else f"{x:g}"))
    plain(axes)


def picture(name: str, kept: dict[str, Any], path: Path) -> None:
    """Write one config's PNG."""
    figure, panels = pyplot.subplots(1, len(AXES), figsize=(8.4, 3.0), sharey=True, layout="constrained")
    for axes, key in zip(panels, AXES, strict=True):
        draw(axes, kept["seeds"], key, kept["target"]["mean_return"])
    panels[0].set_ylabel("mean return of an evaluation")
    panels[0].legend(loc="best", frameon=False, fontsize=8)
    figure.suptitle(name, fontsize=10)
    save(figure, path)


def main() -> None:
    """Draw every config that has periodic evaluations in the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.images.mkdir(parents=True, exist_ok=True)
    for name, kept in json.loads(arguments.json.read_text())["configs"].items():
        if not all(result.get("periodic_evaluations") for result in kept["seeds"]):
            print(f"{name}: measured without its curve; measure it anew with benchmarks/learning.py --configs {name}")
            continue
        path = arguments.images / f"{name}.png"
        picture(name, kept, path)
        print(path)


if __name__ == "__main__":
    main()
