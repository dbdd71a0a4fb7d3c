"""Rollout actors that die, hang, raise, lose their shard or find no room, without a process."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kit.fake_processes import FakeClock, FakeProcesses, FakeWorker
from kit.logs import log_of, logged
from kit.runs import experiment

from actors.loop import ActorReport
from distributed.failures import PAUSES_S
from distributed.ray_workers import Turn
from distributed.replay_access import ReplayAccess
from distributed.rollout_supervisor import RolloutSupervisor
from distributed.runtime import Casualties, Origin
from replay_server.errors import ConfigError, EnvironmentFault, HeadraceError, Unavailable, WorkerDied

ACCESS = ReplayAccess({0: "127.0.0.1:1", 1: "127.0.0.1:2"}, None)


def turn(env_steps: int, stored: int = 0, blocked_on: str | None = None, given_up: int = 0) -> Turn:
    nothing = np.zeros(0)
    report = ActorReport(env_steps, stored, nothing, nothing.astype(np.int64), 1, 0.0, blocked_on, {})
    return Turn(report, given_up)


class Rollouts:
    """A supervisor of some actors on two shards, with the processes and the clock it has."""

    def __init__(self, logs: Path, count: int) -> None:
        config = experiment("headrace/MoviePick10-v0", 4)
        actors = msgspec.structs.replace(config.actors, count=count, hang_seconds=20.0)
        replay = msgspec.structs.replace(config.replay, shards=1, unreachable_seconds=30.0)
        self.processes, self.clock = FakeProcesses(), FakeClock()
        origin = Origin(None, None, (0,) * count, 0)
        weights: Any = object()
        self.supervisor = RolloutSupervisor(
            msgspec.structs.replace(config, actors=actors, replay=replay),
            self.processes, weights, origin, log_of(logs), self.clock,
        )  # fmt: skip
        self.collect = lambda: self.supervisor.collect(0.2, 7)

    def start(self) -> list[FakeWorker]:
        """All arrive, begin and act."""
        for worker in self.processes.workers:
            worker.call.answer()
        self.supervisor.start(ACCESS)
        for worker in self.processes.workers:
            worker.call.answer()
        self.collect()
        assert all(worker.call.method == "run" for worker in self.processes.workers)
        assert all(worker.call.arguments == (0.2, 7) for worker in self.processes.workers)
        return self.processes.workers

    def fail(self, error: HeadraceError) -> None:
        """The newest worker's call fails, and the pause after it passes."""
        self.processes.newest.call.answer(error)
        self.collect()
        self.clock.now += 100.0
        self.collect()


def test_reports_come_in_and_everyone_goes_on(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 3)
    first, second, third = rollouts.start()
    shards = [w.calls[1].arguments[2].addresses for w in (first, second, third)]
    assert shards == [("127.0.0.1:1",), ("127.0.0.1:2",), ("127.0.0.1:1",)]
    second.call.answer(turn(40, stored=32))
    third.call.answer(turn(10, stored=8))
    assert {index: report.env_steps for index, report in rollouts.collect().items()} == {1: 40, 2: 10}
    assert [len(w.calls) for w in (first, second, third)] == [3, 4, 4]
    assert rollouts.collect() == {}
    assert [rollouts.supervisor.acknowledged(shard) for shard in (0, 1)] == [8, 32]
    assert rollouts.supervisor.casualties() == Casualties()


def test_one_that_dies_is_replaced_under_the_next_epoch_and_what_it_had_not_stored_is_lost(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 2)
    first, second = rollouts.start()
    first.call.answer(turn(50, stored=30))
    rollouts.collect()
    first.die()
    rollouts.collect()
    rollouts.collect()
    assert len(rollouts.processes.workers) == 3 and first.killed and not second.killed
    again = rollouts.processes.newest
    assert again.call.method == "arrive"
    again.call.answer()
    rollouts.collect()
    before, place = first.calls[1].arguments[1], again.call.arguments[1]
    assert (place.index, place.epoch, place.env_steps) == (0, 1, 50) and place.writer_id == before.writer_id
    again.call.answer()
    rollouts.collect()
    again.call.answer(turn(60, stored=10, given_up=3))
    rollouts.collect()
    assert rollouts.supervisor.casualties() == Casualties(restarts=1, lost_transitions=20 + 3)
    assert rollouts.supervisor.acknowledged(0) == 30 + 10
    [failure] = [line for line in logged(tmp_path) if line["event"] == "failed"]
    assert failure["of"] == "actor-0" and failure["error"] == "it has died" and "WorkerDied" in failure["traceback"]


def test_one_that_hangs_is_replaced_after_its_deadline(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 1)
    [worker] = rollouts.start()
    rollouts.clock.now += 20.0
    rollouts.collect()
    assert not worker.killed
    rollouts.clock.now += 0.1
    rollouts.collect()
    assert worker.killed and rollouts.supervisor.casualties().restarts == 1


def test_one_that_always_fails_is_quarantined_and_the_run_goes_on_until_none_is_left(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 2)
    _, second = rollouts.start()
    began = rollouts.clock.now
    pauses = []
    rollouts.processes.workers.reverse()  # the first is the newest now
    for _ in range(len(PAUSES_S) + 1):
        rollouts.processes.newest.call.answer(EnvironmentFault("division by zero"))
        rollouts.collect()
        started, since = len(rollouts.processes.workers), rollouts.clock.now
        while len(rollouts.processes.workers) == started and rollouts.clock.now < since + 10.0:
            rollouts.collect()
            rollouts.clock.now += 0.25
        pauses.append(rollouts.clock.now - since - 0.25)
    assert pauses[:-1] == list(PAUSES_S) and rollouts.clock.now - began < 30.0
    assert rollouts.supervisor.casualties() == Casualties(restarts=5, quarantined=1)
    [notice] = rollouts.supervisor.take_notices()
    assert notice.startswith("quarantined: rollout actor 0 failed 6 times in a row, last with: division by zero")
    second.call.answer(turn(7))
    assert list(rollouts.collect()) == [1]
    rollouts.processes.workers.append(second)
    with pytest.raises(WorkerDied, match="no rollout actor is left: rollout actor 1 failed 6 times in a row"):
        for _ in range(len(PAUSES_S) + 1):
            rollouts.fail(EnvironmentFault("division by zero"))


def test_one_that_worked_for_a_while_begins_with_the_first_pause_again(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 1)
    rollouts.start()
    for _ in range(3 * len(PAUSES_S)):
        rollouts.fail(EnvironmentFault("now and then"))
        for _ in range(2):  # it arrives and begins
            rollouts.processes.newest.call.answer()
            rollouts.collect()
        rollouts.clock.now += 19.0
        rollouts.processes.newest.call.answer(turn(1))
        rollouts.collect()
        rollouts.clock.now += 19.0
        rollouts.processes.newest.call.answer(turn(2))
        rollouts.collect()
    assert rollouts.supervisor.casualties().quarantined == 0


def test_what_no_other_process_would_do_better_ends_the_run(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 2)
    rollouts.start()
    rollouts.processes.newest.call.answer(ConfigError("environment.id: wrong"))
    with pytest.raises(ConfigError):
        rollouts.collect()


def test_a_shard_out_of_reach_is_waited_for_and_ends_the_run_after_its_deadline(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 1)
    [worker] = rollouts.start()
    for seconds, blocked_on in ((29.0, "shard"), (29.0, "shard"), (1.0, None), (29.0, "shard"), (29.0, "shard")):
        worker.call.answer(turn(1, blocked_on=blocked_on))
        rollouts.collect()
        rollouts.clock.now += seconds if blocked_on else 0.0
    worker.call.answer(turn(1, blocked_on="shard"))
    with pytest.raises(Unavailable, match=r"rollout actor 0 has not reached the replay shard at 127.0.0.1:1 for 30 s"):
        rollouts.collect()


def test_a_shard_that_is_being_started_again_is_waited_for_without_a_deadline_of_the_actors(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 2)
    first, second = rollouts.start()
    rollouts.supervisor.wait_for({0})
    for _ in range(5):
        rollouts.clock.now += 15.0
        first.call.answer(turn(1, blocked_on="shard"))
        second.call.answer(turn(1))
        rollouts.collect()
    first.die()
    rollouts.collect()
    rollouts.collect()
    again = rollouts.processes.newest
    again.call.answer()
    for _ in range(2):  # nothing to connect to: it has arrived and does not begin
        rollouts.clock.now += 19.0
        second.call.answer(turn(2))
        rollouts.collect()
    assert [call.method for call in again.calls] == ["arrive"]
    rollouts.supervisor.wait_for(())
    rollouts.collect()
    assert again.call.method == "begin"
    assert rollouts.supervisor.casualties() == Casualties(restarts=1, lost_transitions=1)


def test_who_cannot_connect_while_its_shard_is_away_is_not_quarantined_for_it(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 1)
    rollouts.start()
    rollouts.processes.newest.die()
    rollouts.collect()
    rollouts.collect()
    for _ in range(14):
        rollouts.processes.newest.call.answer()  # it arrives
        rollouts.collect()
        rollouts.processes.newest.call.answer(Unavailable("nothing listens there"))
        rollouts.collect()
        rollouts.clock.now += 2.0
        rollouts.collect()
    assert rollouts.supervisor.casualties().quarantined == 0
    rollouts.clock.now += 10.0
    rollouts.processes.newest.call.answer()
    rollouts.collect()
    rollouts.processes.newest.call.answer(Unavailable("nothing listens there"))
    with pytest.raises(Unavailable, match="for 30 s"):
        rollouts.collect()


def test_a_run_starts_with_those_for_whom_there_is_room_and_the_others_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts = Rollouts(tmp_path, 3)
    first, second, third = rollouts.processes.workers
    first.call.answer()
    second.call.answer()
    rollouts.supervisor.start(ACCESS)
    first.call.answer()

    def sleep(seconds: float) -> None:
        rollouts.clock.now += 1.0
        if rollouts.clock.now > 110.0 and second.call.method == "begin":
            second.call.answer()

    monkeypatch.setattr("distributed.rollout_supervisor.time.sleep", sleep)
    rollouts.supervisor.wait_ready()
    assert rollouts.clock.now == pytest.approx(121.0, abs=1.5)
    rollouts.collect()
    assert (first.call.method, second.call.method, third.call.method) == ("run", "run", "arrive")
    rollouts.clock.now += 1000.0
    first.call.answer(turn(1))
    second.call.answer(turn(1))
    assert sorted(rollouts.collect()) == [0, 1]
    assert not third.killed  # no room is no failure
    third.call.answer()
    rollouts.collect()
    third.call.answer()
    rollouts.collect()
    assert third.call.method == "run" and rollouts.supervisor.casualties() == Casualties()


def test_actors_are_told_of_shards_that_moved(tmp_path: Path) -> None:
    rollouts = Rollouts(tmp_path, 2)
    first, second = rollouts.start()
    first.die()
    rollouts.collect()
    rollouts.supervisor.moved({0: "10.0.0.9:1"})
    assert (first.call.method, second.call.method) == ("run", "moved")


def test_a_run_without_any_actor_in_time_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = Rollouts(tmp_path, 2)
    rollouts.supervisor.start(ACCESS)

    def sleep(seconds: float) -> None:
        rollouts.clock.now += 1.0

    monkeypatch.setattr("distributed.rollout_supervisor.time.sleep", sleep)
    with pytest.raises(WorkerDied, match="no rollout actor was ready within 60 s"):
        rollouts.supervisor.wait_ready()


def test_a_run_starts_without_one_that_never_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = Rollouts(tmp_path, 2)
    first, second = rollouts.processes.workers
    first.replies["begin"] = None
    first.call.answer()
    second.call.answer()
    rollouts.supervisor.start(ACCESS)

    def sleep(seconds: float) -> None:
        rollouts.clock.now += 0.25
        newest = rollouts.processes.newest
        newest.call.answer(EnvironmentFault("no such data") if newest.call.method == "begin" else None)

    monkeypatch.setattr("distributed.rollout_supervisor.time.sleep", sleep)
    rollouts.supervisor.wait_ready()
    assert rollouts.clock.now < 150.0
    assert rollouts.supervisor.casualties() == Casualties(restarts=5, quarantined=1)
    rollouts.collect()
    assert first.call.method == "run"
