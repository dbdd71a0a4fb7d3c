"""What a run says of itself in `status.json`, and what `headrace status RUN_DIR` makes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kit.runs import experiment, play
from rich.text import Text

from actors.loop import ActorReport
from distributed import life_sign
from distributed.cli import main
from distributed.processes import Role
from distributed.rates_window import RatesWindow
from distributed.run_directory import RunDirectory
from distributed.run_screen import rows
from distributed.run_status import RunStatus
from distributed.runtime import Progress
from distributed.status import run_state
from distributed.worker_state import WorkerState
from learners.loop import LearnerReport
from replay_server.replay import ReplayStats, ShardStats, Waits

FACTS = {"runtime": "ray", "offline": False, "total_env_steps": 1000, "max_seconds": None}
FIGURES: dict[str, Any] = {
    "env_steps": 400, "updates": 50, "skipped_updates": 0, "seconds": 100.0, "weights_version": 9, "train_return": 3.0,
    "bound_by": "learner", "staleness": 0.5, "actors_blocked": 0.6, "learner_waiting": 0.1, "restarts": 0,
    "lost_transitions": 0, "quarantined_actors": 0, "evaluation": None, "evaluations": 0,
    "checkpoint": {"under_way": False, "completed": 0, "given_up": 0, "seconds": None},
}  # fmt: skip


def shard(size: int, inserted: int, uptime_s: float, **changes: Any) -> ShardStats:
    return ShardStats("127.0.0.1:7400", size, 100, inserted, 0.0, 1.0, 0, None, uptime_s=uptime_s, **changes)


class Run:
    """A run of which a test says how its processes are."""

    def __init__(self, path: Path, workers: tuple[WorkerState, ...] = ()) -> None:
        self.run = RunDirectory.create(path, "")
        self.workers = workers
        self.shards: tuple[ShardStats, ...] = ()
        runtime: Any = SimpleNamespace(
            workers=lambda: self.workers,
            replay_stats=lambda: ReplayStats(0, 0, 0, 0.0, "grpc", self.shards),
        )
        self.status = RunStatus(self.run, runtime, FACTS)

    def shown(self, **figures: Any) -> dict[str, Any]:
        """What `headrace status` reads after another look."""
        self.status.look(FIGURES | figures)
        self.status.enter("training")
        return run_state(self.run.path)

    def screen(self, **figures: Any) -> str:
        return "\n".join(f"{name}|{Text.from_markup(text).plain}" for name, text in rows(self.shown(**figures)))


def actor(index: int, stage: str = "acts", **changes: Any) -> WorkerState:
    return WorkerState(Role.ACTOR, index, stage, **changes)


def report(env_steps: int, version: int = 9, blocked_on: str | None = None) -> ActorReport:
    nothing = np.zeros(0)
    return ActorReport(env_steps, env_steps, nothing, nothing.astype(np.int64), version, 0.0, blocked_on, {})


def test_thousands_of_actors_are_a_summary_and_the_odd_ones(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", tuple(actor(index) for index in range(1985)))
    run.workers += tuple(actor(1985 + n, silent=9.0) for n in range(12))
    run.workers += (
        actor(1997, "starts"),
        actor(1998, "quarantined", restarts=5, error="no [bold] display"),
        actor(1999),
    )
    run.status.take_in(Progress({index: report(5, blocked_on="samples") for index in range(1000)}, ()))
    run.status.take_in(Progress({1999: report(5, version=3, blocked_on="shard")}, ()))
    run.status.take_in(Progress({}, (LearnerReport(50, 9, {}, 0.0, "inserts"),)))
    run.workers += (WorkerState(Role.LEARNER, 0, "learns"), WorkerState(Role.STORE, 0, "serves"))
    screen = run.screen()
    assert (
        "actors|2,000: 1,000 wait for the learner, 985 act, 12 have not reported for a while, "
        "1 start or wait for room, 1 quarantined, 1 cannot reach their shard" in screen
    )
    first, *others = [line.removeprefix("|") for line in screen.splitlines() if line.startswith("|")]
    assert first == "actor 1998 quarantined, restarted 5 times: no [bold] display"
    assert len(others) == 8 and others[-1] == "and 7 more like these (--json shows all)"
    assert "learner|waits for the actors" in screen
    assert "bound by|learner: actors wait 60% of theirs, the learner waits 10% of its time" in screen
    assert "store" not in screen


def test_shards_show_their_rates_and_who_waits_there(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", (WorkerState(Role.SHARD, 0, "serves", restarts=2, error="it ended by signal SIGKILL"),))
    run.shards = (shard(40, 1000, 10.0),)
    run.shown()
    run.shards = (shard(50, 3000, 12.0, waits={"samples": Waits(1, 3.0)}),)
    [told] = run.shown()["workers"]["shard"]
    assert told["inserted_per_second"] == 1000.0 and told["waiting"] == {"samples": 1.5}
    assert "50 of 100 (50%)" in run.screen() and "restarted 2 times; it ended by signal SIGKILL" in run.screen()
    run.shards = (shard(50, 3000, 12.0, state="unreachable", reason="it is stopped"),)
    assert "shard 0 unreachable at 127.0.0.1:7400" in run.screen()
    run.workers = ()  # shards of replay.addresses are nobody's here
    assert run.shown()["workers"]["shard"][0]["elsewhere"]


def test_trouble_names_roles_and_counts(tmp_path: Path) -> None:
    run = Run(
        tmp_path / "run", (actor(0, restarts=2), WorkerState(Role.LEARNER, 0, "restarts", restarts=1, error="why"))
    )
    screen = run.screen(restarts=3, lost_transitions=20)
    assert "trouble|restarts: 3 (2 actor, 1 learner), 20 transitions lost" in screen
    assert "learner|restarts, restarted once, the last for: why" in screen
    assert "trouble|none" in Run(tmp_path / "other").screen()


def test_a_driver_that_is_gone_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "run")
    run.shown()
    document = json.loads(run.run.status.read_text())
    assert run_state(run.run.path)["lives"] and main(["status", str(run.run.path)]) == 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    document["driver"]["pid"], document["alive"] = ended.pid, time.time() - 75
    run.run.status.write_text(json.dumps(document))
    capsys.readouterr()
    assert main(["status", str(run.run.path)]) == 1
    output = capsys.readouterr().out
    assert "no sign of life for 1 min: it was training, as process" in output
    assert "it has no complete checkpoint" in output
    (run.run.checkpoints / "400").mkdir()
    (run.run.checkpoints / "400" / "manifest.json").write_text("{}")
    assert run_state(run.run.path)["advice"] == f"go on with: headrace train --resume {run.run.path}"


def test_a_process_is_told_from_a_later_one_of_the_same_number_and_other_hosts_by_age() -> None:
    here = life_sign.of_this_process()
    assert here["pid"] == os.getpid() and life_sign.is_there(here, age=1e6)
    assert not life_sign.is_there({**here, "began": here["began"] + 1}, age=0.0)
    elsewhere = {**here, "host": "another"}
    assert life_sign.is_there(elsewhere, age=life_sign.SILENT_SECONDS - 1)
    assert not life_sign.is_there(elsewhere, age=life_sign.SILENT_SECONDS + 1)


def test_a_driver_that_waits_shows_that_it_lives(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with run.status:
        first = json.loads(run.run.status.read_text())
        deadline = time.monotonic() + 60.0
        while json.loads(run.run.status.read_text())["alive"] == first["alive"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert json.loads(run.run.status.read_text())["state"] == "starting"
        assert list(rows(run_state(run.run.path))) == []  # nothing is known yet


def test_how_a_run_ended_stays(tmp_path: Path) -> None:
    failed = Run(tmp_path / "failed")
    with pytest.raises(ValueError), failed.status:
        raise ValueError("of two\nlines")
    state = run_state(failed.run.path)
    assert (state["state"], state["error"], state["lives"]) == ("failed", "of two lines", False)
    interrupted = Run(tmp_path / "interrupted")
    with pytest.raises(KeyboardInterrupt), interrupted.status:
        raise KeyboardInterrupt
    assert run_state(interrupted.run.path)["state"] == "interrupted"


def test_a_disk_that_takes_no_status_does_not_end_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    (tmp_path / "run" / "status.json.part").mkdir()
    with run.status:
        run.status.look(FIGURES)
    assert not run.run.status.exists()


def test_rates_are_of_the_last_seconds() -> None:
    window = RatesWindow()
    assert window.add(0.0, {"a": 5}) == {"a": None}
    assert window.add(2.0, {"a": 25}) == {"a": 10.0}
    assert window.add(10.0, {"a": 25}) == {"a": 2.0}
    assert window.add(13.0, {"a": 25}) == {"a": 0.0}
    assert window.add(14.0, {"a": 1}) == {"a": 0.0}


def test_a_serial_run_from_its_end_and_its_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = play(experiment("headrace/MoviePick10-v0", 4), tmp_path / "seed-1")
    word = RunDirectory(tmp_path / "seed-1").id
    assert re.fullmatch("[a-z]{6}", word) and result["run"] == word
    assert main(["status", str(tmp_path)]) == 0  # the directory of several seeds
    output = capsys.readouterr().out
    assert f"run {word}  done" in output and "6,016 of 6,000 env steps (100%)" in output
    assert "over the final 4 episodes" in " ".join(output.split())
    assert main(["status", str(tmp_path / "seed-1"), "--json"]) == 0
    [document] = json.loads(capsys.readouterr().out)["runs"]
    assert document["result"]["env_steps"] == document["env_steps"] and document["advice"] is None
    assert [shard["capacity"] for shard in document["workers"]["shard"]] == [2000, 2000]
    assert document["checkpoint"]["completed"] == 4
