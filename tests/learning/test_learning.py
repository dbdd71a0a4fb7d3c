"""The whole system learns, in the serial runtime so that the outcome is the same on every machine of one kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.ladder import ladder
from actors.seeds import SeedFamily, derive
from distributed.config_loading import find_config
from distributed.loading import load_experiment


def test_movie_pick_learns_to_use_the_history(headrace: Callable[..., Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, _, errors = headrace(
        "train", "movie_pick_dqn", "--runtime", "serial", "--run.total-env-steps", "200000", "--run.max-seconds", "200",
        "--evaluation.every-env-steps", "50000", "--run-dir", str(run),
    ).finish(240)  # fmt: skip
    assert code == 0, errors
    ours = json.loads((run / "result.json").read_text())["evaluation"]
    config = load_experiment(find_config("movie_pick_dqn"), ()).config
    rows = {row.name: row for row in ladder(config.environment, 512, derive(0, family=SeedFamily.FINAL))}
    blind = rows["affinity without satiation"]
    assert ours["mean"] >= 330.0
    assert ours["mean"] > blind.mean + 3.0 * (blind.sem**2 + ours["sem"] ** 2) ** 0.5


def test_cartpole_is_solved(headrace: Callable[..., Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, _, errors = headrace(
        "train", "cartpole_dqn", "--runtime", "serial", "--run.max-seconds", "200", "--run-dir", str(run)
    ).finish(240)
    assert code == 0, errors
    assert json.loads((run / "result.json").read_text())["evaluation"]["mean"] >= 475.0
