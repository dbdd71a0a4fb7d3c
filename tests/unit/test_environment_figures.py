"""The benchmark of environments: every registered one is in it, and its figures are what they say."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import actors.envs  # noqa: F401  registers the ids

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OF_A_FILE = {"headrace/LogUsers-v0"}  # needs users fitted on somebody's log


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("environments")


def test_every_registered_environment_is_measured(environments: Any) -> None:
    registered = {name for name in gymnasium.registry if name.startswith("headrace/")}
    assert {case.id for case in environments.CASES.values()} == registered - OF_A_FILE


def test_a_case_is_measured_over_users_and_catalogues(environments: Any) -> None:
    case = environments.CASES["movie_pick"]
    report = environments.measure(case, (10, 4_096), 0.05)
    assert [row["users"] for row in report["users"]] == [10, 4_096]
    assert [row["films"] for row in report["catalogue"]] == [10, 100, 1_000]
    assert report["plain"] > 0.0
    assert environments.best(report) == report["users"][1]["user_steps_per_second"]
    line = environments.table({"environments": {"movie_pick": report}}).splitlines()[2]
    assert line.startswith("| `movie_pick` |") and line.endswith(" x |")


def test_users_stop_where_memory_does(environments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = iter(range(0, 10**12, 10**9))
    monkeypatch.setattr(environments, "resident_bytes", lambda: float(next(grown)))
    monkeypatch.setattr(environments, "free_bytes", lambda: 3e9)
    report = environments.measure(environments.CASES["topk_toy"], (4_096, 8_192), 0.01)
    assert [row["users"] for row in report["users"]] == [4_096]
