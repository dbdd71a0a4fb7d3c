"""Whole runs under Ray, from the command line: real processes, real ports, real signals."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.logs import logged, metrics
from kit.worlds import MODULE

from distributed.build import make_spec, make_task
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.run_directory import RunDirectory
from distributed.status import run_state
from replay_server import connect

_SMALL = [
    "--environment.num-envs", "32", "--algorithm.hidden-sizes", "[16]", "--algorithm.batch-size", "64",
    "--replay.capacity", "20000", "--replay.min-size", "1000", "--learner.samples-per-insert", "1",
    "--evaluation.every-env-steps", "20000", "--evaluation.episodes", "8", "--evaluation.final-episodes", "16",
    "--run.metrics-every-env-steps", "2000",
]  # fmt: skip


def result(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "result.json").read_text())
    return document


def test_a_killed_actor_and_a_killed_shard_are_replaced_and_training_goes_on(
    headrace: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = headrace(
        "train", "movie_pick_dqn", *_SMALL, "--run.total-env-steps", "40000", "--run-dir", str(run),
    )  # fmt: skip
    command.wait_for(lambda: len(metrics(run)) >= 2, 90)
    os.kill(command.descendants("ray::RolloutWorker")[0], signal.SIGKILL)
    os.kill(command.descendants("serve-replay")[0], signal.SIGKILL)
    code, output, errors = command.finish(120)
    assert code == 0, errors
    assert "round-robin" in output and "ours" in output and str(run) in output
    document = result(run)
    assert document["restarts"] == 2
    assert "is back after" in errors and "had acknowledged are lost" not in errors  # its journal brought them back
    assert document["env_steps"] >= 40_000
    assert document["updates"] > 0 and document["weights_version"] > 1
    assert document["evaluation"]["episodes"] == 16 and document["evaluation"]["mean"] > 0
    assert document["staleness"]["max"] >= document["staleness"]["mean"] >= 0
    assert document["staleness"]["median"] <= 10  # 2 on a quiet machine, which the bench sees to; 50 is out of order
    assert document["fenced_transitions"] == 0
    last = metrics(run)[-1]
    assert last["restarts"] == 2
    failed = {line["of"].split("-")[0] for line in logged(run) if line["event"] == "failed"}
    assert failed == {"actor", "shard"}
    logs = {file.stem.split("-")[0] for file in (run / "logs").glob("*.jsonl")}
    assert logs == {"driver", "actor", "learner", "shard", "evaluator", "store"}
    state = run_state(run)
    assert (state["run"], state["state"], state["restarts"]) == (document["run"], "done", 2)
    assert state["restarts_by_role"]["actor"] == state["restarts_by_role"]["shard"] == 1
    # The limiter kept the ratio, whoever was faster, and over both shards together.
    error = last["replay"]["inserted"] * 1.0 - last["replay"]["sampled"]
    assert abs(error - 1000) < 10_000
    command.wait_until_gone()


def test_ctrl_c_stops_in_order_and_resume_goes_on(headrace: Callable[..., Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = headrace(
        "train", "movie_pick_dqn", *_SMALL, "--run.total-env-steps", "1e9", "--run.max-seconds", "1000",
        "--run-dir", str(run),
    )  # fmt: skip
    command.wait_for(lambda: len(metrics(run)) >= 2, 90)
    begin = time.monotonic()
    os.killpg(command.process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
    code, _, errors = command.finish(30)
    assert time.monotonic() - begin < 20.0
    assert code == 0, errors
    assert "Traceback" not in errors
    command.wait_until_gone()
    first = result(run)
    assert first["stopped_by"] == "interrupt" and first["evaluation"] is None
    checkpoint = max((run / "checkpoints").iterdir(), key=lambda d: int(d.name))
    assert {p.name for p in checkpoint.iterdir()} >= {
        "learner.safetensors", "policy.safetensors", "replay-0.h5", "replay-1.h5", "manifest.json",
    }  # fmt: skip

    code, _, errors = headrace(
        "train", "--resume", str(run), "--run.max-seconds", "1", "--actors.count", "3", "--replay.shards", "3"
    ).finish(120)
    assert code == 0, errors
    assert "count: 3" in (run / "config.yaml").read_text()
    assert not (run / "journals").exists()
    second = result(run)
    assert second["env_steps"] >= first["env_steps"] and second["updates"] >= first["updates"]
    assert second["replay_size"] >= first["replay_size"] > 1000  # the replay came back
    assert (run / "checkpoints" / str(second["env_steps"]) / "replay-2.h5").is_file()
    assert second["evaluation"] is not None
    steps = [row["env_steps"] for row in metrics(run)]
    assert steps == sorted(steps)


def test_one_shard_serves_one_run_after_another(headrace: Callable[..., Any], tmp_path: Path) -> None:
    """Shards that run elsewhere: another spec is refused; a second run's records are not taken for repeats."""
    config = load_experiment(find_config("cartpole_dqn"), ()).config
    spec = json.loads(make_spec(config, make_task(config)).to_json())
    (tmp_path / "shard.yaml").write_text(
        json.dumps({"address": "127.0.0.1:0", "spec": spec, "capacity": 50000, "rate_limiter": {"min_size": 200}})
    )
    shard = headrace("serve-replay", "shard.yaml")
    address = shard.process.stdout.readline().split("serving replay at ")[1].split()[0]
    elsewhere = ("--replay.addresses", f"[{address}]")
    code, _, errors = headrace("train", "movie_pick_dqn", *elsewhere).finish(60)
    assert code == 2 and len(errors.strip().splitlines()) == 1 and "replay.addresses" in errors, errors
    inserted = [0]
    for _ in range(2):
        command = headrace("train", "cartpole_dqn", *elsewhere, "--run.total-env-steps", "2000")
        code, _, errors = command.finish(120)
        assert code == 0, errors
        with connect([address]) as replay:
            inserted.append(replay.stats().inserted)
        assert inserted[-1] > inserted[-2] + 1500
        command.wait_until_gone()
    os.kill(shard.process.pid, signal.SIGTERM)
    assert shard.finish(10)[0] == 0


def test_a_learner_of_two_processes_is_one_learner_also_when_one_of_them_is_killed(
    headrace: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = headrace(
        "train", "movie_pick_dqn", *_SMALL, "--learner.processes", "2", "--run.total-env-steps", "20000",
        "--run.checkpoint-every-env-steps", "4000", "--run-dir", str(run),
    )  # fmt: skip
    command.wait_for(lambda: RunDirectory(run).complete_checkpoints() != [], 120)
    before = command.descendants("ray::LearnerWorker")
    assert len(before) == 2
    os.kill(before[1], signal.SIGKILL)
    code, _, errors = command.finish(120)
    assert code == 0, errors
    document = result(run)
    assert document["restarts"] == 1 and errors.count("the learner is back after") == 1
    assert document["updates"] > 0 and document["weights_version"] > 1 and document["skipped_updates"] == 0
    last = metrics(run)[-1]
    # Each drew its half of every batch, and the law holds over both.
    assert last["replay"]["sampled"] >= 64 * last["updates"] > 0
    assert abs(last["replay"]["inserted"] * 1.0 - last["replay"]["sampled"] - 1000) < 10_000
    command.wait_until_gone()
    resumed = headrace(
        "train", "--resume", str(run), "--learner.processes", "1", "--run.total-env-steps", "21000",
    )  # fmt: skip
    code, _, errors = resumed.finish(120)
    assert code == 0, errors
    assert result(run)["updates"] > document["updates"]
    resumed.wait_until_gone()


def test_an_environment_that_always_fails_ends_the_run(headrace: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(MODULE.replace("self.t == 10", "1 / (self.t - 5) == 10"))
    command = headrace(
        "train", "cartpole_dqn", "--environment.id", "broken:Corridor", "--run-dir", "run", "--run.max-seconds", "1000"
    )
    code, _, errors = command.finish(180)
    assert code == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("headrace: error: no rollout actor is left: rollout actor ") and "division by zero" in last
    assert "quarantined: rollout actor" in errors or "count: 1" in (tmp_path / "run" / "config.yaml").read_text()
    command.wait_until_gone()


def test_an_environment_of_the_users_own_directory_reaches_the_workers(
    headrace: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "my_world.py").write_text(MODULE)
    run = tmp_path / "run"
    code, _, errors = headrace(
        "train", "cartpole_dqn", "--environment.id", "my_world:Corridor", "--run.total-env-steps", "4000",
        "--run-dir", str(run),
    ).finish(120)  # fmt: skip
    assert code == 0, errors
    assert result(run)["evaluation"]["mean"] > 8.0  # ten is the most; always the second action


def test_a_run_without_actors_learns_from_a_log(headrace: Callable[..., Any], tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    small = ["train", "cartpole_dqn", "--algorithm.hidden-sizes", "[16]", "--evaluation.final-episodes", "5"]
    made = headrace(
        *small, "--runtime", "serial", "--run.total-env-steps", "3000", "--evaluation.every-env-steps", "0",
        "--learner.samples-per-insert", "1", "--run-dir", str(log),
    )  # fmt: skip
    assert made.finish(60)[0] == 0
    command = headrace(
        *small, "--actors.count", "0", "--replay.init-from", str(log), "--replay.shards", "2",
        "--run.total-env-steps", "400", "--run.checkpoint-every-env-steps", "200", "--run.metrics-every-env-steps",
        "100", "--evaluation.every-env-steps", "200", "--evaluation.episodes", "2", "--run-dir", str(run),
    )  # fmt: skip
    code, output, errors = command.finish(90)
    assert code == 0, errors
    document = result(run)
    assert document["offline"] and document["env_steps"] == document["updates"] >= 400
    assert document["replay_size"] == result(log)["replay_size"] and document["restarts"] == 0
    assert f"after {document['updates']:,} updates in" in output
    assert [row["replay"]["inserted"] for row in metrics(run)] == [0] * len(metrics(run)) != []
    assert len(list((run / "checkpoints" / str(document["env_steps"])).glob("replay-*.h5"))) == 2
    assert "replay starts with" in errors and "train return" not in errors
