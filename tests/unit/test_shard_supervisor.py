"""Shards that end, hang or take their host along, and what they start again from, without a process."""

from pathlib import Path

import msgspec
import pytest
from kit.fake_processes import FakeClock, FakeProcesses
from kit.logs import log_of, logged
from kit.runs import experiment

from distributed.logged_data import LoggedData
from distributed.run_directory import RunDirectory
from distributed.run_secrets import RunSecrets
from distributed.runtime import Casualties, Origin
from distributed.shard_host import Served
from distributed.shard_plan import ShardPlan
from distributed.shard_supervisor import ShardSupervisor
from learners.checkpoint import write_json
from replay_server.errors import HeadraceError, Unavailable, WorkerDied
from replay_server.shard_config import ShardConfig
from replay_server.specs import Field, RecordSpec

SPEC = RecordSpec((Field("action", "int64"),))
NOTHING = [0, 0]


def plan_of(path: Path, origin: Origin = Origin(None, None, (0, 0), 0), count: int = 2, **replay: object) -> ShardPlan:  # noqa: B008
    config = experiment("headrace/MoviePick10-v0", 4)
    replay_config = msgspec.structs.replace(config.replay, **replay)
    actors = msgspec.structs.replace(config.actors, count=count)
    run = RunDirectory(path)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    return ShardPlan(msgspec.structs.replace(config, replay=replay_config, actors=actors), SPEC, run, origin)


class Shards:
    """A supervisor of two shards that serve, with the processes and the clock it has."""

    def __init__(self, path: Path, *, loopback: bool = True) -> None:
        self.processes, self.clock = FakeProcesses(), FakeClock()
        self.supervisor = ShardSupervisor(
            plan_of(path), self.processes, RunSecrets(tls=False), log_of(path), self.clock
        )
        self.hosts = self.processes.workers[:2]
        self.ip = "127.0.0.1" if loopback else "10.0.0.1"
        for index, host in enumerate(self.hosts):
            host.replies = {"arrive": self.ip, "begin": Served(f"{self.ip}:{7400 + index}", 100, 100)}
        self.access = self.supervisor.wait_ready()
        assert self.access.addresses == (f"{self.ip}:7400", f"{self.ip}:7401")
        for host in self.hosts:
            host.replies = {}


def test_shards_are_watched_and_one_that_ends_comes_back_at_its_address_in_its_host(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    first, second = shards.hosts
    first.call.answer(None)
    second.call.answer("it ended by signal SIGKILL")
    shards.supervisor.collect([500, 700])
    assert first.call.method == "watch" and not first.call.ended
    assert not second.killed
    shards.supervisor.collect([500, 700])
    config = second.call.arguments[0]
    assert second.call.method == "begin" and isinstance(config, ShardConfig)
    assert (config.address, config.shard_index, config.durability) == ("127.0.0.1:7401", 1, "journal")
    shards.clock.now += 2.5
    second.call.answer(Served("127.0.0.1:7401", 800, 300))
    shards.supervisor.collect([500, 700])
    assert second.call.method == "watch"
    assert shards.supervisor.casualties() == Casualties(restarts=1)
    assert shards.supervisor.take_notices() == ("replay shard 1 is back after 2.5 s with 300 records",)
    assert [line["error"] for line in logged(tmp_path) if line["event"] == "failed"] == [
        "replay shard 1: it ended by signal SIGKILL"
    ]


def test_records_that_were_acknowledged_and_did_not_come_back_are_counted_once(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    host = shards.hosts[0]
    for acknowledged, came_back, lost in ((500, 580, 20), (600, 680, 20), (700, 400, 400)):
        host.call.answer("it ended by signal SIGKILL")
        shards.supervisor.collect([acknowledged, 0])
        shards.clock.now += 50.0
        shards.supervisor.collect([acknowledged, 0])
        host.call.answer(Served("127.0.0.1:7400", came_back, 50))
        shards.supervisor.collect([acknowledged, 0])
        assert shards.supervisor.casualties().lost_transitions == lost
    assert "20 that it had acknowledged are lost" in shards.supervisor.take_notices()[0]
    host.call.answer("it ended by signal SIGKILL")
    shards.supervisor.collect([9_000, 0])
    shards.clock.now += 50.0
    shards.supervisor.collect([9_000, 0])
    host.call.answer(Served("127.0.0.1:7400", 0, 0))
    shards.supervisor.collect([9_000, 0])
    assert shards.supervisor.casualties().lost_transitions == 400 + 2_000  # it never held more


def test_a_host_that_dies_or_does_not_answer_is_replaced(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    shards.hosts[0].die()
    shards.supervisor.collect(NOTHING)
    shards.supervisor.collect(NOTHING)
    again = shards.processes.newest
    again.call.answer("127.0.0.1")
    shards.supervisor.collect(NOTHING)
    assert again is not shards.hosts[0] and shards.hosts[0].killed
    assert again.call.arguments[0].address == "127.0.0.1:7400"
    shards.clock.now += 31.0
    shards.supervisor.collect(NOTHING)
    assert shards.hosts[1].killed and not again.killed


def test_a_shard_whose_node_is_gone_comes_back_elsewhere_and_everybody_is_told(tmp_path: Path) -> None:
    shards = Shards(tmp_path, loopback=False)
    shards.hosts[1].die()
    shards.supervisor.collect(NOTHING)
    shards.supervisor.collect(NOTHING)
    again = shards.processes.newest
    again.call.answer("10.0.0.9")
    shards.supervisor.collect(NOTHING)
    assert again.call.arguments[0].address == "10.0.0.9:0"
    again.call.answer(Served("10.0.0.9:7777", 60, 60))
    shards.supervisor.collect([0, 25])
    assert shards.supervisor.take_moved() == {1: "10.0.0.9:7777"} and shards.supervisor.take_moved() == {}
    assert shards.supervisor.casualties() == Casualties(1, lost_transitions=100 + 25 - 60)


def test_a_port_that_somebody_took_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    host = shards.hosts[0]
    host.call.answer("it ended by signal SIGKILL")
    tried = []
    for _ in range(5):
        shards.supervisor.collect(NOTHING)
        shards.clock.now += 5.0
        shards.supervisor.collect(NOTHING)
        worker = shards.processes.newest if len(shards.processes.workers) > 2 else host
        if worker.call.method == "arrive":
            worker.call.answer("127.0.0.1")
            shards.supervisor.collect(NOTHING)
        tried.append(worker.call.arguments[0].address)
        worker.call.answer(WorkerDied("the port is taken"))
    assert tried == ["127.0.0.1:7400"] * 3 + ["127.0.0.1:0"] * 2


@pytest.mark.parametrize("kind", [WorkerDied, Unavailable])
def test_a_shard_that_cannot_be_started_again_ends_the_run(tmp_path: Path, kind: type[HeadraceError]) -> None:
    shards = Shards(tmp_path)
    shards.hosts[0].call.answer("it ended with code 1")
    with pytest.raises(WorkerDied, match="replay shard 0 failed 6 times in a row, last with: .*the disk is gone"):
        for _ in range(40):
            shards.supervisor.collect(NOTHING)
            shards.clock.now += 5.0
            worker = shards.processes.newest if len(shards.processes.workers) > 2 else shards.hosts[0]
            if worker.call.method == "arrive":
                worker.call.answer("127.0.0.1")
            elif worker.call.method == "begin":
                worker.call.answer(kind("the disk is gone"))


def test_one_that_does_not_start_at_all_is_not_tried_again(tmp_path: Path) -> None:
    processes = FakeProcesses()
    secrets = RunSecrets(tls=False)
    supervisor = ShardSupervisor(plan_of(tmp_path), processes, secrets, log_of(tmp_path), FakeClock())
    for worker in processes.workers:
        worker.replies = {"arrive": "127.0.0.1", "begin": WorkerDied("it would not fit into memory")}
    with pytest.raises(WorkerDied, match="memory"):
        supervisor.wait_ready()


def test_the_end_of_a_run_ends_shards_and_removes_journals(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    kept = shards.hosts[0].calls[1].arguments[0].directory

    def get(call: object, seconds: float, who: str) -> None:
        raise WorkerDied("it has gone already")

    shards.processes.get = get  # type: ignore[method-assign]
    shards.supervisor.stop()
    assert shards.hosts[0].calls[-1].method == "stop" and str(shards.hosts[0].calls[-1].arguments[1]) == kept
    assert all(host.killed for host in shards.hosts)


def complete(path: Path, step: int) -> Path:
    directory = RunDirectory(path).checkpoints / str(step)
    directory.mkdir(parents=True)
    write_json(directory / "manifest.json", {"scheduled": True})
    for shard in range(2):
        (directory / f"replay-{shard}.h5").write_bytes(b"")
    return directory


def test_a_shard_starts_from_the_newest_complete_checkpoint_or_the_log(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Origin(None, None, (0, 0), 0, LoggedData(("a.h5",), 5)))
    config = plan.shard(1, "127.0.0.1:0")
    assert (config.restore_from, config.init_from, config.init_shards) == (None, ("a.h5",), 2)
    newest = [complete(tmp_path, step) for step in (500, 1000)][1]
    config = plan.shard(1, "127.0.0.1:7401")
    assert (config.restore_from, config.init_from) == (str(newest / "replay-1.h5"), ())
    config = plan_of(tmp_path, count=3, shards=3).shard(2, "127.0.0.1:7401")
    assert config.restore_from == (str(newest / "replay-0.h5"), str(newest / "replay-1.h5"))
    assert (config.shard_index, config.init_shards) == (2, 3)


def test_journals_lie_in_the_run_directory_apart_for_every_start(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, durability="fsync")
    configs = [plan.shard(index, "127.0.0.1:0") for index in (0, 1)]
    assert {config.durability for config in configs} == {"fsync"}
    first, second = (Path(str(config.directory)) for config in configs)
    assert first.parent == second.parent != plan_of(tmp_path).directory(0)
    assert first.parent.parent == RunDirectory(tmp_path).journals and first != second
    assert {config.save_directory for config in configs} == {str(RunDirectory(tmp_path).checkpoints)}


@pytest.mark.parametrize("settings", [{"durability": "checkpoint"}, {"count": 0, "init_from": "log.h5"}])
def test_nothing_is_journalled_where_nobody_inserts_or_it_is_not_wanted(tmp_path: Path, settings: dict) -> None:
    plan = plan_of(tmp_path, **settings)
    config = plan.shard(0, "127.0.0.1:0")
    assert (config.durability, config.directory, plan.directory(0)) == ("checkpoint", None, None)
