"""What the offline benchmark makes of a log and of results."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("offline")


def log_of(path: Path, replay_size: int) -> Path:
    path.mkdir()
    rows = [(0, None), (3, -900.0), (1, -100.0)]
    lines = [json.dumps({"episodes": count, "train_return": mean}) for count, mean in rows]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    result = {"replay_size": replay_size, "env_steps": 12_000, "evaluation": {"mean": -150.0}, "seed": 7}
    (path / "result.json").write_text(json.dumps(result))
    return path


def test_behaviour_counts_every_episode_alike_and_the_threshold_is_half_the_way(tmp_path: Path, offline: Any) -> None:
    known = offline.about(log_of(tmp_path / "log", 11_990))
    assert (known["episodes"], known["behaviour"], known["teacher"]) == (4, -700.0, -150.0)
    assert known["threshold"] == -425.0
    seeds = [{"evaluation": {"mean": mean}, "wall_seconds": 9.0, "updates": 5} for mean in (-200.0, -425.0)]
    report = {"log": known, "configs": {offline.JUDGED: {"seeds": seeds}}}
    assert offline.passes(report)
    assert "-200.0, -425.0 | -312.5" in offline.table(report) and "| -425.0 |" in offline.table(report)
    seeds[0]["evaluation"]["mean"] = -426.0
    assert not offline.passes(report)


def test_a_log_that_lost_its_beginning_is_refused(tmp_path: Path, offline: Any) -> None:
    with pytest.raises(SystemExit, match=r"holds 9,000 records of 12,000: raise capacity"):
        offline.about(log_of(tmp_path / "log", 9_000))
