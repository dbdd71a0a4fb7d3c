"""Runs without actors, and with logged records to begin with: from the log to the result, and stopped in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import msgspec
import pytest
from kit.runs import changed, digest, experiment, play
from rich.console import Console

from distributed import cli
from distributed.config import ExperimentConfig
from distributed.driver import Clock, Driver
from distributed.logged_data import find_log
from distributed.progress import LiveView
from distributed.run_directory import RunDirectory
from distributed.serial_runtime import SerialRuntime
from distributed.stop_signal import StopSignal
from learners.algorithms.discrete_bcq import DiscreteBCQConfig
from replay_server.errors import ConfigError

STEPS = 3_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two actors over two shards, large enough to keep everything they did."""
    config = experiment("headrace/MoviePick10-v0", 16)
    run = tmp_path_factory.mktemp("log") / "run"
    play(changed(config, run={"total_env_steps": STEPS}), run)
    return run


def offline(log: Path, **parts: dict[str, Any]) -> ExperimentConfig:
    config = experiment("headrace/MoviePick10-v0", 16)
    parts = {
        "replay": {"init_from": str(log), "shards": 3, "capacity": 2 * STEPS},
        "actors": {"count": 0},
        "evaluation": {"every_env_steps": 100, "episodes": 2},
        "run": {"total_env_steps": 500, "checkpoint_every_env_steps": 200, "metrics_every_env_steps": 100},
    } | parts
    return changed(config, **parts)


def records(run: Path) -> int:
    newest = RunDirectory(run).complete_checkpoints()[-1]
    return sum(len(h5py.File(file)["keys"]) for file in newest.glob("replay-*.h5"))


def test_updates_are_the_clock_of_a_run_without_actors(log: Path, tmp_path: Path) -> None:
    result = play(offline(log), tmp_path / "run")
    assert (result["offline"], result["env_steps"], result["updates"]) == (True, 500, 500)
    assert result["stopped_by"] == "total_env_steps" and result["evaluation"]["episodes"] == 4
    assert result["best_periodic_evaluation"]["env_steps"] in (100, 200, 300, 400, 500)
    assert result["replay_size"] == records(log) and result["staleness"] == {"mean": None, "median": None, "max": None}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == [100, 200, 300, 400, 500]
    assert all(row["offline"] and row["learner"]["loss"] > 0 and row["train_return"] is None for row in rows)
    assert {row["time"]["bound_by"] for row in rows} == {"learner"}
    assert [d.name for d in RunDirectory(tmp_path / "run").complete_checkpoints()] == ["400", "500"]
    assert [row["replay"]["inserted"] for row in rows] == [0] * 5


def test_stop_and_resume_without_the_log_give_the_same_bytes(log: Path, tmp_path: Path) -> None:
    config = offline(log)
    whole = play(config, tmp_path / "whole")
    interrupted = play(config, tmp_path / "halves", looks=31)
    assert interrupted["stopped_by"] == "interrupt" and interrupted["env_steps"] == 320
    gone = offline(tmp_path / "gone")  # the checkpoint holds all that was taken from it
    resumed = play(gone, tmp_path / "halves", checkpoint=tmp_path / "halves" / "checkpoints" / "200")
    assert resumed["updates"] == whole["updates"] == 500
    assert digest(tmp_path / "halves") == digest(tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"actors.count is 3, the checkpoint .* has 0"):
        with_actors = changed(offline(log), actors={"count": 3})
        play(with_actors, tmp_path / "halves", checkpoint=_newest(tmp_path / "halves"))


def _newest(run: Path) -> Path:
    return RunDirectory(run).complete_checkpoints()[-1]


def test_schedules_run_on_updates(log: Path, tmp_path: Path) -> None:
    decay = {"final_learning_rate": 1e-6, "learning_rate_decay_env_steps": 100}
    play(offline(log), tmp_path / "constant")
    play(offline(log, algorithm=decay), tmp_path / "decayed")
    one, other = (digest(tmp_path / name)["learner.safetensors"] for name in ("constant", "decayed"))
    assert one != other
    slower = {**decay, "learning_rate_decay_env_steps": STEPS}  # the log's own size would end both at once
    play(offline(log, algorithm=slower), tmp_path / "slower")
    assert digest(tmp_path / "slower")["learner.safetensors"] not in (one, other)


def test_a_warm_start_learns_at_once_and_counts_only_what_its_actors_do(log: Path, tmp_path: Path) -> None:
    config = experiment("headrace/MoviePick10-v0", 16)
    config = changed(
        config, run={"total_env_steps": 1_500, "checkpoint_every_env_steps": 400}, replay={"capacity": 8_000}
    )
    cold = play(config, tmp_path / "cold")
    warm = play(changed(config, replay={"init_from": (str(log),)}), tmp_path / "warm")
    assert cold["env_steps"] == warm["env_steps"] and not warm["offline"]
    assert warm["updates"] > cold["updates"] + 10  # it need not wait for min_size records
    rows = [json.loads(line) for line in (tmp_path / "warm" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["replay"]["inserted"] == records(tmp_path / "cold")
    assert rows[-1]["replay"]["size"] == records(tmp_path / "cold") + records(log)
    halves = play(changed(config, replay={"init_from": (str(log),)}), tmp_path / "halves", looks=6)
    assert halves["stopped_by"] == "interrupt"
    play(config, tmp_path / "halves", checkpoint=tmp_path / "halves" / "checkpoints" / str(_scheduled(tmp_path)))
    assert digest(tmp_path / "halves") == digest(tmp_path / "warm")


def _scheduled(tmp_path: Path) -> int:
    steps = [int(d.name) for d in RunDirectory(tmp_path / "halves").complete_checkpoints()]
    return next(s for s in steps if json.loads(_manifest(tmp_path, s).read_text())["scheduled"])


def _manifest(tmp_path: Path, step: int) -> Path:
    return tmp_path / "halves" / "checkpoints" / str(step) / "manifest.json"


def test_files_checkpoints_and_runs_can_be_named(log: Path) -> None:
    newest = _newest(log)
    files = tuple(str(newest / f"replay-{shard}.h5") for shard in range(2))
    found = [find_log(offline(log, replay={"init_from": name})) for name in (str(log), str(newest), files)]
    assert found[0] == found[1] == found[2] and found[0].files == files and found[0].records == records(log)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["--replay.init-from", "none.h5"], "replay.init_from: {cwd}/none.h5: no such file"),
        (["--replay.init-from", "."], "replay.init_from: {cwd} holds no replay-<shard>.h5 and no complete checkpoint"),
        (["--replay.init-from", "{log}", "--algorithm.gamma", "0.5"], "holds other records: gamma is 0.99 there, 0.5"),
        (["--replay.init-from", "{log}", "--environment.id", "CartPole-v1"], "environment is headrace/MoviePick10-v0"),
        (["--replay.init-from", "{log}", "--replay.capacity", "2000"], "replay.capacity is 2,000; raise it"),
        (["--replay.init-from", "{log}", "--replay.min-size", "4000"], "sampling would never begin; lower replay.min"),
        ([], "actors.count is 0, which leaves nothing to learn from: set replay.init_from"),
        (["--replay.init-from", "{log}", "--environment.normalise-observations", "true"], "take their moments from"),
    ],
)
@pytest.mark.parametrize("runtime", ["serial", "ray"])
def test_a_log_that_does_not_fit_is_refused_before_anything_is_made(
    settings: list[str], says: str, runtime: str, log: Path, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [setting.replace("{log}", str(log)) for setting in settings]
    given = ["--algorithm.gamma", "0.99", "--algorithm.reward-scale", "0.1", "--replay.min-size", "100"]
    command = ["train", "movie_pick_dqn", "--runtime", runtime, "--actors.count", "0", *given, *words]
    assert cli.main(command) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("headrace: error: ") and says.replace("{cwd}", str(tmp_path)) in line
    assert list(tmp_path.iterdir()) == []


def test_the_live_view_shows_no_actors(log: Path, tmp_path: Path) -> None:
    config = offline(log, actors={"count": 0})
    ticks = iter(range(10**9))
    clock = Clock(lambda: float(next(ticks)), lambda: float(next(ticks)))
    run = RunDirectory.create(tmp_path / "run", "")
    with (tmp_path / "screen").open("w") as file:
        view = LiveView("mine", 500, None, clock.monotonic, Console(file=file, width=200))
        Driver(config, SerialRuntime(config), run, view, clock).train(StopSignal(), None)
    lines = (tmp_path / "screen").read_text().splitlines()
    assert f"mine: replay starts with {records(log):,} logged records" in lines
    last = [line for line in lines if "bound by learner" in line][-1]
    assert "of 500" in last and "env steps" not in last and "train return" not in last and "evaluation" in last


def test_a_log_is_for_the_shards_a_run_starts_itself() -> None:
    replay = experiment("CartPole-v1", 1).replay
    with pytest.raises(ValueError, match="init_from contradicts addresses"):
        msgspec.structs.replace(replay, shards=1, addresses=("h:1",), init_from="a")


def test_discrete_bcq_does_better_than_the_behaviour_it_learns_from(tmp_path: Path) -> None:
    """CartPole, from what DQN did while it learnt; its own episodes are the behaviour."""
    config = experiment("CartPole-v1", 8)
    learner = {"reward_scale": 0.05, "batch_size": 64, "learning_rate": 2e-3, "hidden_sizes": (64,)}
    config = changed(
        config,
        algorithm=learner,
        replay={"capacity": 8_000},
        run={"total_env_steps": 4_000, "checkpoint_every_env_steps": 0, "metrics_every_env_steps": 500},
        evaluation={"every_env_steps": 0},
    )
    play(config, tmp_path / "log")
    rows = [json.loads(line) for line in (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()]
    played = [(row["episodes"], row["train_return"]) for row in rows if row["episodes"]]
    behaviour = sum(count * mean for count, mean in played) / sum(count for count, _ in played)
    algorithm = DiscreteBCQConfig(n_step=3, reward_scale=0.05, learning_rate=2e-3, target_update_tau=0.02)
    offline = changed(
        msgspec.structs.replace(config, algorithm=algorithm),
        replay={"init_from": str(tmp_path / "log"), "sampler": "uniform", "priority_exponent": 0.0, "shards": 1},
        actors={"count": 0},
        run={"total_env_steps": 1_500},
        evaluation={"final_episodes": 20},
    )
    result = play(offline, tmp_path / "offline")
    assert result["evaluation"]["mean"] > 2 * behaviour
