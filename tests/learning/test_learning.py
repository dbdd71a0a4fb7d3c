"""The whole system learns, in the serial runtime so that the outcome is the same on every machine of one kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.log_users import random_users

from actors.environments import EnvironmentConfig
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


def test_users_of_a_log_are_shown_what_they_like_themselves(headrace: Callable[..., Any], tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "users.npz"
    random_users(items=200).save(model)
    code, _, errors = headrace(
        "train", "log_users_dqn", "--runtime", "serial", "--environment.kwargs.model", str(model),
        "--environment.kwargs.catalogue", "100", "--run.total-env-steps", "40000", "--run.max-seconds", "200",
        "--algorithm.learning-rate-decay-env-steps", "40000", "--algorithm.epsilon-anneal-env-steps", "10000",
        "--run-dir", str(run),
    ).finish(240)  # fmt: skip
    assert code == 0, errors
    ours = json.loads((run / "result.json").read_text())["evaluation"]
    config = EnvironmentConfig(id="headrace/LogUsers-v0", kwargs={"model": str(model), "catalogue": 100})
    rows = {row.name: row.mean for row in ladder(config, 2048, derive(0, family=SeedFamily.FINAL))}
    best_for_all, oracle = rows["best list for everybody"], rows["myopic oracle"]
    assert ours["mean"] > best_for_all + 0.5 * (oracle - best_for_all)
