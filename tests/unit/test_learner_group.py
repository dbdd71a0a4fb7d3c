"""The processes of one learner are started, asked, ended and counted as one, without a process."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kit.fake_processes import FakeClock, FakeProcesses
from kit.logs import log_of
from kit.runs import experiment

from distributed.config import ExperimentConfig, LearnerConfig
from distributed.learner_group import LearnerProcesses, merged_cut, merged_report
from distributed.learner_supervisor import LearnerSupervisor
from distributed.learner_worker import LearnerCut, LearnerWorker
from distributed.processes import Role
from distributed.replay_access import ReplayAccess
from distributed.run_directory import RunDirectory
from distributed.runtime import Casualties, Origin
from distributed.seat import Seat
from learners.loop import LearnerReport
from learners.weights import WeightSnapshot
from replay_server.errors import CheckpointError, Diverged, PeersLost, WorkerDied

SNAPSHOT = WeightSnapshot.of(7, {})


def report(metrics: dict[str, float], waiting: float = 0.0, blocked_on: str | None = None) -> LearnerReport:
    return LearnerReport(90, 12, metrics, waiting, blocked_on)


class Learning:
    """A supervisor of a learner of two processes, which have begun."""

    def __init__(self, path: Path) -> None:
        config = experiment("headrace/MoviePick10-v0", 4)
        learner = msgspec.structs.replace(config.learner, hang_seconds=20.0, processes=2)
        config = msgspec.structs.replace(config, runtime="ray", learner=learner)
        self.processes, self.clock = FakeProcesses(), FakeClock()
        sink: Any = type("Sink", (), {"newest_version": lambda self, known: known})()
        run = RunDirectory(path)
        run.logs.mkdir(parents=True)
        origin = Origin(None, None, (0, 0), 0)
        self.supervisor = LearnerSupervisor(config, self.processes, sink, origin, run, log_of(path), self.clock)
        self.supervisor.start(ReplayAccess({0: "127.0.0.1:1"}, None), 0)
        self.answer(None, None)
        self.supervisor.wait_ready()
        self.supervisor.learn_on(0.2)

    @property
    def pair(self) -> list[Any]:
        return self.processes.workers[-2:]

    def answer(self, *answers: Any) -> None:
        for worker, answer in zip(self.pair, answers, strict=True):
            worker.call.answer(answer)


def test_all_begin_alike_and_meet_at_the_first(tmp_path: Path) -> None:
    first, second = Learning(tmp_path).pair
    assert [worker.role for worker in (first, second)] == [Role.LEARNER] * 2
    meeting = first.calls[0]
    assert meeting.method == "open_meeting" and [call.method for call in second.calls] == ["begin", "run"]
    begins = first.calls[1], second.calls[0]
    assert [begin.arguments[5] for begin in begins] == [meeting] * 2
    assert [begin.arguments[3].rank for begin in begins] == [0, 1]
    assert begins[0].arguments[3].meet_seconds == FakeProcesses.room_seconds


def test_what_they_report_is_one_report_once_all_have(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.pair[1].call.answer(report({"loss": 3.0}, 0.2, "inserts"))
    assert learning.supervisor.pending() == [learning.pair[0].call] and learning.supervisor.collect() == ()
    learning.pair[0].call.answer(report({"loss": 1.0, "q": 5.0}))
    assert learning.supervisor.collect() == (report({"loss": 2.0, "q": 5.0}, 0.1, "inserts"),)
    assert [worker.call.method for worker in learning.pair] == ["run", "run"]
    learning.supervisor.set_moments({"return_std": SNAPSHOT.blob})
    learning.supervisor.publish_again()
    learning.supervisor.moved({0: "127.0.0.1:2"})
    told = ["run", "set_moments", "publish", "moved"]
    assert [[call.method for call in worker.calls[-4:]] for worker in learning.pair] == [told, told]


def test_the_death_of_one_ends_all_and_all_begin_again_once(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    before = learning.pair
    before[1].die()  # the other's call has not ended, and never will
    assert learning.supervisor.collect() == () and [worker.killed for worker in before] == [True, True]
    assert learning.supervisor.collect() == () and len(learning.processes.workers) == 4
    learning.answer(None, None)
    assert learning.supervisor.collect() == ()
    assert learning.supervisor.casualties() == Casualties(restarts=1)
    assert [worker.call.method for worker in learning.pair] == ["run", "run"]


def test_a_cut_is_made_by_all_or_none(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    cuts = LearnerCut(report({}), None, SNAPSHOT, {"a": SNAPSHOT.blob}), LearnerCut(report({}), None)
    for second, error in ((cuts[1], None), (LearnerCut(report({}), "away"), "away")):
        learning.supervisor.request_cut("500.part")
        learning.answer(report({}), report({}))
        learning.supervisor.collect()
        assert [worker.call.arguments for worker in learning.pair] == [("500.part",)] * 2
        learning.answer(cuts[0], second)
        learning.supervisor.collect()
        if error is None:
            made = learning.supervisor.take_cut()
            assert made is not None and made.snapshot is SNAPSHOT and made.arrays == {"a": SNAPSHOT.blob}
        else:
            with pytest.raises(CheckpointError, match=error):
                learning.supervisor.take_cut()


def test_replicas_that_differ_end_the_run(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.answer(Diverged("not the same"), PeersLost("alone"))
    with pytest.raises(Diverged):
        learning.supervisor.collect()


def test_the_reason_is_rather_what_went_wrong_than_who_noticed(tmp_path: Path) -> None:
    processes = FakeProcesses()
    group = LearnerProcesses(processes, 2).spawn(LearnerWorker, Role.LEARNER, log_of(tmp_path).identity)
    calls = group.ask("run", 0.2)
    calls[0].answer(PeersLost("process 0 has lost the others"))
    calls[1].answer(WorkerDied("killed"))
    with pytest.raises(WorkerDied, match="killed"):
        LearnerProcesses(processes, 2).get(calls, 1.0, "the learner")
    with pytest.raises(WorkerDied, match=r"the learner did not answer within 0 s"):
        LearnerProcesses(processes, 2).get(group.ask("run", 0.2), 0.0, "the learner")


def test_what_one_process_says_stays_as_it_is() -> None:
    alone = LearnerCut(report({"loss": 1.0}), None, SNAPSHOT, {})
    assert merged_cut([alone]) is alone and merged_report([alone.report]) is alone.report


def config_of(**changes: Any) -> ExperimentConfig:
    return msgspec.structs.replace(experiment("headrace/MoviePick10-v0", 4), **changes)


def test_what_several_processes_cannot_do_is_refused() -> None:
    three = LearnerConfig(processes=3)
    with pytest.raises(ValueError, match=r"algorithm.batch_size \(32\) must be a multiple of learner.processes \(3\)"):
        config_of(runtime="ray", learner=three)
    with pytest.raises(ValueError, match="runtime serial is one process: drop learner.processes or use runtime ray"):
        config_of(learner=LearnerConfig(processes=2))


def test_prometheus_finds_every_process(tmp_path: Path) -> None:
    processes = FakeProcesses()
    log = log_of(tmp_path)
    who = dataclasses.replace(log.identity.of(Role.LEARNER), prometheus=True)
    seat = Seat("the learner", who, LearnerProcesses(processes, 2), log, FakeClock())
    seat.fill(LearnerWorker)
    seat.issue(seat.handle.ask("run"), 10.0)
    assert seat.state("learns").metrics == ()
    for index, worker in enumerate(processes.workers):
        worker.calls[0].answer(f"127.0.0.1:{index + 1}")
    assert seat.state("learns").metrics == ("127.0.0.1:1", "127.0.0.1:2")
