"""Logs of simple policies: they hold what was seen, shown and answered, and runs begin from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from actors.envs.next_item import NextItem, NextItemModel
from actors.envs.next_item.baselines import popularity
from actors.envs.next_item.behaviour import Behaviour
from distributed.cli import main
from distributed.collect import collect
from distributed.config import ExperimentConfig
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.logged_data import find_log
from distributed.raw_config import Override
from replay_server.errors import ConfigError

MIX = "popularity mix"
CONFIG = Path(__file__).resolve().parents[2] / "examples" / "next_item_log.yaml"


def config_of(log: Path, **settings: Any) -> ExperimentConfig:
    settings = {"environment.num_envs": 64, "replay.init_from": str(log), "replay.capacity": 5000} | settings
    overrides = [Override.parse(f"--{name}", str(value)) for name, value in settings.items()]
    return load_experiment(CONFIG, overrides).config


def columns_of(log: Path) -> dict[str, np.ndarray]:
    with h5py.File(log / "replay-0.h5") as file:
        return {name: column[:] for name, column in file["columns"].items()}


def test_feedback_is_what_was_seen_shown_and_clicked_with_its_propensity(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    mean = collect(config, MIX, 5000, tmp_path)
    assert find_log(config).records == 5000
    log, simulation = columns_of(tmp_path), NextItem(NextItemModel(), 1)
    assert log["reward"].mean() == pytest.approx(mean) and 0.0 < mean < 0.1
    assert set(np.unique(log["reward"])) == {0.0, 1.0} and not log["discount"].any()
    propensity = Behaviour.mix(popularity(simulation), 0.2, 1.0).propensity
    np.testing.assert_allclose(np.exp(log["behaviour_log_prob"]), propensity[log["action"]], rtol=1e-5)
    np.testing.assert_array_equal(log["next_observation"][:, :-1], log["observation"][:, 1:])
    clicked = log["reward"] == 1.0
    consumed = log["next_observation"][:, -1].astype(int)
    topic_of = simulation.catalogue.topic_of
    np.testing.assert_array_equal(topic_of[log["action"][clicked]], topic_of[consumed[clicked]])


def test_organic_sequences_are_what_users_consumed(tmp_path: Path) -> None:
    collect(config_of(tmp_path), "random", 700, tmp_path, organic=True)
    log = columns_of(tmp_path)
    assert len(log["action"]) == 700
    np.testing.assert_array_equal(log["action"], log["next_observation"][:, -1])
    assert (log["reward"] == 1.0).all() and not log["behaviour_log_prob"].any()


def test_a_config_that_learns_from_a_log_takes_what_is_collected_for_it(tmp_path: Path) -> None:
    settings = [("environment.num_envs", 64), ("replay.init_from", tmp_path), ("replay.min_size", 100)]
    overrides = [Override.parse(f"--{name}", str(value)) for name, value in settings]
    config = load_experiment(find_config("next_item_reinforce"), overrides).config
    collect(config, "random", 300, tmp_path, organic=True)
    assert find_log(config).records == 300


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    logs = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        collect(config_of(tmp_path, **{"run.seed": seed}), MIX, 300, tmp_path / name)
        logs.append(columns_of(tmp_path / name))
    for name, column in logs[0].items():
        np.testing.assert_array_equal(column, logs[1][name])
    assert (logs[0]["action"] != logs[2]["action"]).any()


def test_baselines_that_learn_are_told(tmp_path: Path) -> None:
    collect(config_of(tmp_path), "per-user bandit", 64 * 60, tmp_path)
    log = columns_of(tmp_path)
    again = log["action"][: 64 * 29].reshape(-1, 64)  # a clicked item is shown again, one that was not is not
    clicked = log["reward"][: 64 * 29].reshape(-1, 64)[:-1] == 1.0
    assert clicked.any()
    assert (again[1:] == again[:-1])[clicked].all() and not (again[1:] == again[:-1])[~clicked].any()


def test_the_command_writes_a_log_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["collect", str(CONFIG), "--output", "logs/next_item_clicks", "--environment.num-envs", "64"]
    assert main([*command, "--policy", MIX, "--records", "200"]) == 0
    assert "logs/next_item_clicks: 200 records of popularity mix" in capsys.readouterr().out
    assert find_log(load_experiment(CONFIG, [Override.parse("--replay.min-size", "200")]).config)
    for wrong, said in (
        (
            ["--policy", "popular"],
            "--policy: headrace/NextItem-v0 has no baseline 'popular'; it has random, popularity",
        ),
        ([], "collect: needs --policy"),
    ):
        assert main([*command, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_organic_needs_an_environment_that_tells(tmp_path: Path) -> None:
    config = load_experiment(find_config("movie_pick_dqn"), []).config
    with pytest.raises(ConfigError, match="--organic: headrace/MoviePick10-v0 does not tell"):
        collect(config, "random", 10, tmp_path, organic=True)
