"""A learner that dies, hangs or fails goes on from a checkpoint, without a process."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kit.fake_processes import FakeClock, FakeProcesses
from kit.logs import log_of
from kit.runs import experiment

from distributed.learner_supervisor import LearnerSupervisor
from distributed.learner_worker import LearnerCut
from distributed.processes import Role
from distributed.ray_weights import StoreState
from distributed.replay_access import ReplayAccess
from distributed.run_directory import RunDirectory
from distributed.runtime import Casualties, Origin
from distributed.store_watch import StoreWatch
from learners.checkpoint import save_learner, write_json
from learners.loop import LearnerReport
from learners.weights import WeightSnapshot
from replay_server.errors import CheckpointError, Diverged, ReplayError, Unavailable, WorkerDied

SNAPSHOT = WeightSnapshot.of(7, {})


class Sink:
    """A weight store that holds some version."""

    version = 0

    def newest_version(self, known: int) -> int:
        return max(known, self.version)


def report(updates: int, version: int, blocked_on: str | None = None) -> LearnerReport:
    return LearnerReport(updates, version, {}, 0.0, blocked_on)


class Learning:
    """A supervisor of a learner at work, with the processes and the clock it has."""

    def __init__(self, path: Path, origin: Origin = Origin(None, None, (0, 0), 0)) -> None:  # noqa: B008
        config = experiment("headrace/MoviePick10-v0", 4)
        config = msgspec.structs.replace(
            config,
            learner=msgspec.structs.replace(config.learner, hang_seconds=20.0),
            replay=msgspec.structs.replace(config.replay, unreachable_seconds=30.0),
        )
        self.processes, self.clock, self.sink = FakeProcesses(), FakeClock(), Sink()
        self.run = RunDirectory(path)
        self.run.logs.mkdir(parents=True)
        sink: Any = self.sink
        log = log_of(path)
        self.supervisor = LearnerSupervisor(config, self.processes, sink, origin, self.run, log, self.clock)
        self.supervisor.start(ReplayAccess({0: "127.0.0.1:1"}, None), 11)
        self.processes.newest.call.answer()
        self.supervisor.wait_ready()
        self.supervisor.learn_on(0.2)

    def place(self) -> Any:
        call = self.processes.newest.call
        assert call.method == "begin"
        return call.arguments[3]

    def fail(self, error: ReplayError | WorkerDied) -> None:
        """The call in flight fails, and the pause after it passes."""
        self.processes.newest.call.answer(error)
        assert self.supervisor.collect() == ()
        self.clock.now += 100.0
        assert self.supervisor.collect() == ()


def complete(run: RunDirectory, step: int) -> Path:
    directory = run.checkpoints / str(step)
    directory.mkdir(parents=True)
    save_learner({"counters": np.array([step])}, directory)
    write_json(directory / "manifest.json", {"scheduled": True})
    return directory


def test_the_first_learner_starts_where_the_run_does_and_reports(tmp_path: Path) -> None:
    origin = Origin(complete(RunDirectory(tmp_path), 500), SNAPSHOT, (250, 250), 1)
    learning = Learning(tmp_path, origin)
    [worker] = learning.processes.workers
    assert worker.role is Role.LEARNER
    place = worker.calls[0].arguments[3]
    assert (place.checkpoint, place.published) == (origin.checkpoint, SNAPSHOT)
    assert (place.above, place.inserted_before) == (0, 11)
    assert learning.supervisor.collect() == ()
    worker.call.answer(report(3, 8))
    assert learning.supervisor.collect() == (report(3, 8),)
    assert worker.call.method == "run" and not worker.call.ended


def test_a_killed_learner_goes_on_from_the_newest_checkpoint_above_all_published_versions(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    worker = learning.processes.newest
    worker.call.answer(report(90, 12))
    learning.supervisor.collect()
    learning.supervisor.set_moments({"return_std": SNAPSHOT.blob})
    complete(learning.run, 500)
    newest = complete(learning.run, 1000)
    learning.sink.version = 14
    worker.die()
    assert learning.supervisor.collect() == () and worker.killed
    assert learning.supervisor.pending() == [] and not learning.supervisor.learning
    learning.supervisor.set_moments({"return_std": SNAPSHOT.blob})  # while nobody is there
    assert learning.supervisor.collect() == ()
    place = learning.place()
    assert (place.checkpoint, place.published, place.above, place.inserted_before) == (newest, None, 14, 11)
    assert place.arrays["counters"] == 1000  # read here: the learner's node need not see the file
    learning.clock.now += 4.0
    learning.processes.newest.call.answer()
    assert learning.supervisor.collect() == ()
    assert [call.method for call in learning.processes.newest.calls] == ["begin", "set_moments", "run"]
    assert learning.supervisor.take_notices() == ("the learner is back after 4.0 s",)
    assert learning.supervisor.casualties() == Casualties(restarts=1)


def test_without_a_checkpoint_it_begins_anew_also_when_the_store_is_empty_too(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.processes.newest.call.answer(report(90, 12))
    learning.supervisor.collect()
    learning.fail(WorkerDied("gone"))
    place = learning.place()
    assert (place.checkpoint, place.published, place.above) == (None, None, 12)


def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    [worker] = learning.processes.workers
    learning.clock.now += 20.1
    learning.supervisor.collect()
    assert worker.killed and learning.supervisor.casualties().restarts == 1


def test_values_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.processes.newest.call.answer(Diverged("not finite"))
    with pytest.raises(Diverged):
        learning.supervisor.collect()


def test_one_that_always_fails_ends_the_run(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    with pytest.raises(WorkerDied, match="the learner failed 6 times in a row, last with: no memory"):
        for _ in range(6):
            learning.fail(WorkerDied("no memory"))


def test_no_shard_for_too_long_ends_the_run(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    worker = learning.processes.newest
    worker.call.answer(report(1, 1, "shard"))
    learning.supervisor.collect()
    learning.clock.now += 30.5
    worker.call.answer(report(1, 1))
    learning.supervisor.collect()
    worker.call.answer(report(1, 1, "shard"))
    learning.supervisor.collect()
    learning.clock.now += 30.5
    worker.call.answer(report(1, 1, "shard"))
    with pytest.raises(Unavailable, match=r"the learner has reached no replay shard of 127.0.0.1:1 for 30 s"):
        learning.supervisor.collect()


def test_a_cut_follows_what_the_learner_works_on_and_comes_with_its_report(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    worker = learning.processes.newest
    learning.supervisor.request_cut("500.part")
    assert worker.call.method == "run" and learning.supervisor.take_cut() is None
    worker.call.answer(report(3, 8))
    assert learning.supervisor.collect() == (report(3, 8),)
    assert (worker.call.method, worker.call.arguments) == ("cut", ("500.part",))
    worker.call.answer(cut := LearnerCut(report(3, 9), None, SNAPSHOT, {}))
    assert learning.supervisor.collect() == (report(3, 9),)
    assert worker.call.method == "run"
    assert learning.supervisor.take_cut() is cut and learning.supervisor.take_cut() is None


def test_shards_that_are_being_started_again_are_waited_for(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.supervisor.wait_for({0})
    for _ in range(5):
        learning.clock.now += 15.0
        learning.processes.newest.call.answer(report(1, 1, "shard"))
        learning.supervisor.collect()
    learning.supervisor.wait_for(())
    learning.processes.newest.call.answer(report(1, 1, "shard"))
    learning.supervisor.collect()
    learning.clock.now += 31.0
    learning.processes.newest.call.answer(report(1, 1, "shard"))
    with pytest.raises(Unavailable, match="for 30 s"):
        learning.supervisor.collect()


def test_a_learner_killed_at_its_cut_is_replaced_and_one_whose_shard_is_away_is_not(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    for answer in (LearnerCut(report(3, 9), "the shard at 127.0.0.1:1 is away"), WorkerDied("killed")):
        worker = learning.processes.newest
        learning.supervisor.request_cut("500.part")
        worker.call.answer(report(3, 8))
        learning.supervisor.collect()
        worker.call.answer(answer)
        learning.supervisor.collect()
        with pytest.raises(CheckpointError, match="is away|the learner: killed"):
            learning.supervisor.take_cut()
        assert learning.supervisor.learning is isinstance(answer, LearnerCut)
    learning.supervisor.request_cut("600.part")  # while it is down: made when it is back
    learning.clock.now += 100.0
    learning.supervisor.collect()
    learning.processes.newest.call.answer()
    learning.supervisor.collect()
    assert learning.processes.newest.call.method == "cut"


def test_a_store_that_came_back_empty_is_seen_once(tmp_path: Path) -> None:
    processes, clock = FakeProcesses(), FakeClock()
    store = processes.spawn(object, Role.STORE)
    watch = StoreWatch(store, processes, lambda: None, clock)

    def look(answer: object) -> bool:
        clock.now += 1.0
        assert not watch.found_empty()
        assert not watch.found_empty()  # the answer has not come yet
        store.call.answer(answer)
        return watch.found_empty()

    assert look(StoreState("a", 0))  # perhaps it has been restarted before anybody looked
    assert not look(StoreState("a", 0))
    assert not look(StoreState("a", 5))
    assert not look(WorkerDied("the store has died"))
    assert look(StoreState("b", 0))
    assert not look(StoreState("b", 6))
    assert not look(StoreState("c", 7))  # the learner was faster
    assert watch.casualties() == Casualties(restarts=2)


def test_a_store_that_hangs_is_started_again_and_asked_again(tmp_path: Path) -> None:
    processes, clock, started = FakeProcesses(), FakeClock(), []
    store = processes.spawn(object, Role.STORE)
    watch = StoreWatch(store, processes, lambda: started.append(clock.now), clock)
    assert not watch.found_empty()
    clock.now += 600.0  # its process has not even started: Ray sees to that
    assert not watch.found_empty() and not started
    store.call.answer(StoreState("a", 5))
    assert not watch.found_empty()
    for _ in range(3):
        asked = len(store.calls)
        watch.found_empty()
        assert len(store.calls) == asked + 1
        clock.now += 30.0
        assert not watch.found_empty() and not started
        clock.now += 1.0
        assert not watch.found_empty() and started.pop() == clock.now
    watch.found_empty()
    store.call.answer(StoreState("b", 0))
    assert watch.found_empty() and watch.casualties() == Casualties(restarts=1)
