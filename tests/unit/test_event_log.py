"""What processes log, line by line."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kit.fake_processes import FakeClock, FakeProcesses
from kit.logs import log_of, logged
from kit.runs import experiment, play

from distributed.event_log import EventLog
from distributed.processes import Role
from distributed.run_directory import RunDirectory
from distributed.seat import Seat
from replay_server.errors import CheckpointError, WorkerDied


def test_a_line_says_who_when_and_what(tmp_path: Path) -> None:
    log = EventLog(RunDirectory(tmp_path).identity().of(Role.ACTOR, 3))
    log.info("ready", path=tmp_path, count=4)
    try:
        raise CheckpointError("no room\nleft")
    except CheckpointError as error:
        log.error("failed", error, of="shard-1")
    ready, failed = logged(tmp_path, "actor-3")
    assert str(log) == str(tmp_path / "logs" / "actor-3.jsonl")
    who = {"run": RunDirectory(tmp_path).id, "role": "actor", "index": 3, "pid": os.getpid()}
    assert ready | who == ready and failed | who == failed
    assert (ready["level"], ready["event"], ready["path"], ready["count"]) == ("info", "ready", str(tmp_path), 4)
    assert abs(datetime.fromisoformat(ready["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert (failed["level"], failed["error"], failed["of"]) == ("error", "no room\nleft", "shard-1")
    assert failed["traceback"].splitlines()[-2:] == ["replay_server.errors.CheckpointError: no room", "left"]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    threads = [threading.Thread(target=lambda: [log.info("x", text="y" * 5000) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line["text"] for line in logged(tmp_path)] == ["y" * 5000] * 200


def test_a_node_without_the_run_directory_logs_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = RunDirectory(tmp_path).identity().of(Role.SHARD, 1)
    (tmp_path / "run_id").write_text("another\n")  # a directory of the same name on another node
    log = EventLog(identity)
    log.info("start")
    assert log.path is None and not (tmp_path / "logs").exists()
    assert json.loads(capsys.readouterr().err)["event"] == "start"
    assert str(log) == "what shard-1 wrote to standard error"


def test_a_seat_logs_failures_and_once_that_an_answer_is_late(tmp_path: Path) -> None:
    clock, processes = FakeClock(), FakeProcesses()
    log = log_of(tmp_path)
    seat = Seat("the learner", log.identity.of(Role.LEARNER), processes, log, clock)
    seat.fill(object)
    seat.issue(seat.handle.run.remote(), 10.0)
    for _ in range(3):
        clock.now += 3.0
        assert not seat.answered()
    clock.now += 3.0
    with pytest.raises(WorkerDied) as late:
        seat.answered()
    seat.vacate(late.value)
    asked, slow, failed = logged(tmp_path)
    assert (asked["event"], asked["of"]) == ("process asked for", "learner-0")
    assert (slow["event"], slow["waited_seconds"], slow["allowed_seconds"]) == ("slow", 6.0, 10.0)
    assert (failed["event"], failed["error"]) == ("failed", "the learner has not answered for 10 s")
    assert (failed["in_a_row"], failed["tried_again"]) == (1, True)


def test_a_run_logs_its_milestones_and_no_step(tmp_path: Path) -> None:
    result = play(experiment("headrace/MoviePick10-v0", 4), tmp_path)
    lines = logged(tmp_path)
    events = [line["event"] for line in lines]
    assert events[:2] == ["start", "training"] and events[-1] == "end"
    assert events.count("checkpoint") == 4 and events.count("evaluation") == len(result["periodic_evaluations"])
    assert len(events) == 3 + 4 + events.count("evaluation")
    assert {line["run"] for line in lines} == {result["run"]}
    assert lines[-1]["env_steps"] == result["env_steps"]


def test_a_run_that_fails_logs_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise WorkerDied("no rollout actor is left")

    monkeypatch.setattr("distributed.serial_runtime.SerialRuntime.advance", fail)
    with pytest.raises(WorkerDied):
        play(experiment("headrace/MoviePick10-v0", 4), tmp_path)
    failed = logged(tmp_path)[-1]
    assert (failed["event"], failed["error"]) == ("failed", "no rollout actor is left")
    assert "WorkerDied" in failed["traceback"]
