"""What the benchmarks of learning make of runs, and that every shipped config has a figure to reach."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import distributed
from distributed.config_loading import find_config
from distributed.loading import load_experiment

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CONFIGS = sorted(path.stem for path in (Path(distributed.__file__).parent / "configs").glob("*.yaml"))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of `benchmarks/` by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_every_shipped_config_is_measured_and_ends_within_its_time(benchmark: Any) -> None:
    targets, offline = benchmark("learning").TARGETS, benchmark("offline").LEARNERS
    assert sorted({*targets, *(config[0] for config in offline.values())}) == CONFIGS
    for name, target in targets.items():
        config: Any = load_experiment(find_config(name), ()).config
        assert config.run.max_seconds is not None and config.run.max_seconds <= target.seconds, name
        assert config.evaluation.final_episodes >= 100, name


def test_a_seed_is_good_when_it_reaches_its_return_in_time(benchmark: Any) -> None:
    good, target = benchmark("learning").good, {"mean_return": 200.0, "seconds": 60.0}
    assert good(target, {"evaluation": {"mean": 200.0}, "wall_seconds": 60.0})
    assert not good(target, {"evaluation": {"mean": 199.9}, "wall_seconds": 50.0})
    assert not good(target, {"evaluation": {"mean": 250.0}, "wall_seconds": 60.1})
    assert not good(target, {"evaluation": None, "wall_seconds": 10.0})


def test_a_seed_is_good_when_its_metrics_are_too(benchmark: Any) -> None:
    learning = benchmark("learning")
    target = {"mean_return": 15.0, "seconds": 60.0, "metrics": {"recall_at_20": 0.45}}
    runs = [
        {
            "evaluation": {"mean": 16.0, "metrics": {"recall_at_20": {"mean": recall, "sem": 0.01}}},
            "wall_seconds": 50.0,
            "start_up_seconds": 5.0,
            "env_steps": 100,
        }
        for recall in (0.5, 0.44)
    ]
    assert [learning.good(target, run) for run in runs] == [True, False]
    line = learning.row("next_item_reinforce", {"target": target, "seeds": runs})
    assert "16.0, 16.0; recall_at_20 0.500, 0.440" in line and ">= 15, recall_at_20 >= 0.45 in 60 s" in line


def test_time_to_a_threshold(benchmark: Any) -> None:
    script = benchmark("side_by_side")
    runs = [
        {
            "evaluations": [
                {"env_steps": 20, "seconds": 2.0, "mean": 9.0},
                {"env_steps": 10, "seconds": 1.0, "mean": 1.0},
            ]
        },
        {
            "evaluations": [
                {"env_steps": 10, "seconds": 5.0, "mean": 12.0},
                {"env_steps": 20, "seconds": 6.0, "mean": 3.0},
            ]
        },
        {"evaluations": [{"env_steps": 10, "seconds": 7.0, "mean": 4.0}]},
    ]
    assert [script.solved(run, 9.0) and script.solved(run, 9.0)["seconds"] for run in runs] == [2.0, 5.0, None]
    assert script.median_to(runs, 9.0, "seconds") == 5.0 and script.median_to(runs, 9.0, "env_steps") == 20
    assert script.median_to(runs, 12.0, "seconds") == float("inf")


def test_the_table_says_what_was_not_reached(benchmark: Any) -> None:
    script = benchmark("side_by_side")

    def system(*evaluations: dict[str, float]) -> dict[str, Any]:
        run = {"seconds": 10.0, "env_steps": 1000, "start_up_seconds": 1.0, "evaluations": list(evaluations)}
        return {"limit_seconds": 60.0, "runs": [run]}

    systems = {
        "headrace": system({"env_steps": 100, "seconds": 2.0, "mean": 300.0}),
        "sb3": system({"env_steps": 400, "seconds": 8.0, "mean": 250.0}),
        "sb3-same-net": system({"env_steps": 400, "seconds": 9.0, "mean": 90.0}),
        "tianshou": {"limit_seconds": 60.0, "runs": [{"error": "ImportError: no tianshou"}]},
    }
    lines = script.table({"tasks": {"A": {"thresholds": [200.0], "systems": systems}}}).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == list(systems)
    assert "| 8.0 | 4.00 x | 400 | 100 |" in lines[1]
    assert "not within 60 s (best 90)" in lines[2]
    assert "failed: ImportError: no tianshou" in lines[3]
