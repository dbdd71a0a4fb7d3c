"""An algorithm is one file: from a user's directory by its path, in `learners/algorithms` by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import learners.algorithms
from distributed.loading import load_experiment, shipped_algorithms
from distributed.raw_config import Override

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_example_trains_from_its_own_directory(headrace: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("munchausen_dqn.py", "munchausen_dqn.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    code, _, errors = headrace(
        "train", "munchausen_dqn.yaml", "--runtime", "serial", "--run.total-env-steps", "6000",
        "--run.max-seconds", "200", "--evaluation.every-env-steps", "0", "--evaluation.final-episodes", "20",
        "--run-dir", "run",
    ).finish(240)  # fmt: skip
    assert code == 0, errors
    assert json.loads((tmp_path / "run" / "result.json").read_text())["evaluation"]["mean"] > 60.0  # random: 22
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert "target_mean" in row["learner"]


def test_a_file_in_the_package_is_an_algorithm_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES / "munchausen_dqn.py").read_text()
    field = '    type: Annotated[str, Meta(description="Short name.")] = "munchausen_dqn"\n    entropy:'
    (tmp_path / "munchausen_dqn.py").write_text(text.replace("    entropy:", field, 1))
    monkeypatch.setattr(learners.algorithms, "__path__", [*learners.algorithms.__path__, str(tmp_path)])
    assert "munchausen_dqn" in shipped_algorithms()
    override = Override(("algorithm", "type"), "munchausen_dqn")
    config = load_experiment(EXAMPLES / "munchausen_dqn.yaml", [override]).config
    assert type(config.algorithm).__name__ == "MunchausenConfig"
    assert config.algorithm.log_policy_share == 0.9


def test_the_example_is_short() -> None:
    lines = (EXAMPLES / "munchausen_dqn.py").read_text().splitlines()
    assert len(lines) <= 60
