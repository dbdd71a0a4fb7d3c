"""The command that fits users on a log."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from kit.log_users import write_log

from actors.environments import make_vector_env
from actors.envs.log_users import FitSettings, FittedUsers
from distributed.cli import COMMANDS, main
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.raw_config import Override


def test_every_setting_is_an_option() -> None:
    grammar, text = COMMANDS["fit-users"].grammar, COMMANDS["fit-users"].help
    names = [field.name.replace("_", "-") for field in fields(FitSettings)]
    assert list(grammar.valued) == names
    assert all(name in text for name in names)


def test_a_log_is_fitted_and_its_figures_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("implicit")
    log, model = write_log(tmp_path / "ratings.csv"), tmp_path / "users.npz"
    command = ["fit-users", str(log), str(model), "--factors", "4", "--liked-from", "3.5", "--item-quality", "true"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "80 users (16 held out), 80 items, 2,560 ratings fitted on" in output
    assert "expected calibration error 0." in output and "recall@20 of later likes: 0." in output
    assert f"--environment.kwargs.model {model}" in output
    fitted = FittedUsers.load(model)
    assert fitted.user_factors.shape == (80, 4) and fitted.click[3] != 0.0
    assert fitted.source["settings"]["liked_from"] == 3.5


def test_a_run_fits_the_log_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("implicit")
    log = write_log(tmp_path / "ratings.csv")
    settings = {"log": str(log), "catalogue": "20", "fit": "{factors: 4}"}
    overrides = [Override.parse(f"--environment.kwargs.{name}", value) for name, value in settings.items()]
    config = load_experiment(find_config("log_users_dqn"), overrides).config
    env = make_vector_env(config.environment, 3)
    assert env.single_action_space.n == 20  # type: ignore[attr-defined]
    assert FittedUsers.load(tmp_path / "ratings.csv.users.npz").user_factors.shape == (80, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "fit-users: needs a log of ratings, as in headrace fit-users ratings.csv"),
        (["ratings.csv", "--factors", "many"], "--factors: must be a whole number, not 'many'"),
        (["ratings.csv", "--item-quality", "yes"], "--item-quality: must be true or false, not 'yes'"),
        (["ratings.csv", "--factors", "0"], "fit-users: factors is 0, must be at least 1"),
        (["ratings.csv"], "ratings.csv: cannot be read (No such file or directory)"),
        (["ratings.csv", "--factor", "4"], "did you mean --factors?"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit-users", *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == 1
