"""Checkpoints of a run: one at a time, taken while it goes on, given up when a part of it dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.runs import changed, experiment, play

from distributed.checkpoints import Checkpoints
from distributed.manifest import read_manifest
from distributed.run_directory import RunDirectory
from distributed.runtime import Cut, Progress
from learners.weights import WeightSnapshot
from replay_server.errors import CheckpointError, ConfigError

POLICY = WeightSnapshot.of(3, {"w": np.ones(2, np.float32)})


class FakeRuntime:
    """Cuts when it is let, writes when it is let."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.cut_ready = True
        self.dies: str | None = None
        self.may_write = threading.Event()

    def begin_checkpoint(self, directory: Path, barriers: int) -> None:
        self.begun.append((directory.name, barriers))
        self.directory = directory

    def cut(self) -> Cut | None:
        if self.dies == "learner":
            raise CheckpointError("the learner has died")
        return Cut(POLICY, Progress({}, ()), self._write) if self.cut_ready else None

    def _write(self) -> None:
        assert self.may_write.wait(30.0)
        (self.directory / "replay-0.h5").write_bytes(b"half")
        if self.dies == "shard":
            raise CheckpointError("shard 0 was started anew")


class World:
    def __init__(self, path: Path) -> None:
        self.runtime, self.said, self.now = FakeRuntime(), [], 100.0
        self.run = RunDirectory.create(path / "run", "")
        runtime: Any = self.runtime
        self.checkpoints = Checkpoints(runtime, self.run, 2, lambda: self.now, self.said.append, None)

    said: list[str]

    def turn(self, env_steps: int, due: bool = False) -> bool:
        """One of the driver's turns; whether a cut was made."""
        self.checkpoints.advance(env_steps, due)
        cut = self.checkpoints.cut()
        if cut is not None:
            manifest = {"env_steps": env_steps, "scheduled": self.checkpoints.scheduled}
            self.checkpoints.complete(cut, manifest, {"policy.safetensors": POLICY})
        return cut is not None

    def write(self) -> None:
        self.runtime.may_write.set()
        self.checkpoints.wait()
        self.runtime.may_write.clear()

    @property
    def names(self) -> list[str]:
        return sorted(directory.name for directory in self.run.checkpoints.iterdir())


@pytest.fixture
def world(tmp_path: Path) -> Any:
    world = World(tmp_path)
    yield world
    world.runtime.may_write.set()
    world.checkpoints.close(at_once=False)


def test_it_is_complete_only_when_everything_is_written(world: World) -> None:
    world.runtime.cut_ready = False
    assert not world.turn(1000, due=True)
    world.runtime.cut_ready = True
    assert world.turn(1010)
    assert not world.turn(1020)
    assert world.names == ["1000.part"] and world.run.complete_checkpoints() == []
    world.write()
    assert world.names == ["1010"], "named after the moment of its cut"
    manifest = read_manifest(world.run.checkpoints / "1010")
    assert manifest["scheduled"] and manifest["files"].keys() == {"policy.safetensors", "replay-0.h5"}


def test_what_falls_due_meanwhile_follows_once(world: World) -> None:
    assert world.turn(1000, due=True)
    assert not world.turn(2000, due=True) and not world.turn(3000, due=True)
    world.write()
    assert world.turn(3100)
    world.write()
    assert not world.turn(3200)
    assert world.names == ["1000", "3100"]
    assert world.runtime.begun == [("1000.part", 1), ("3100.part", 2)]


@pytest.mark.parametrize("who", ["learner", "shard"])
def test_one_whose_part_dies_is_given_up_and_tried_again(world: World, who: str) -> None:
    assert world.turn(1000, due=True)
    world.write()
    world.runtime.dies = who
    world.turn(2000, due=True)
    world.write()
    assert world.names == ["1000"] and world.checkpoints.given_up == 1
    assert (
        world.checkpoints.failure is not None
        and len(world.said) == 1
        and "checkpoint 2000.part was given up" in world.said[0]
    )
    world.runtime.dies = None
    assert not world.turn(2100), "not at once"
    world.now += 10.0
    assert world.turn(2200)
    world.write()
    assert world.names == ["1000", "2200"] and world.checkpoints.failure is None


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distributed.manifest.write_json", full)
    world.turn(1000, due=True)
    world.write()
    assert world.names == [] and "No space left" in world.said[0]


def test_a_serial_run_goes_on_with_as_many_shards_only(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "")
    directory = run.new_checkpoint(100)
    run.complete_checkpoint(directory, {"env_steps": 100, "scheduled": True, "shards": 3}, 2)
    config = experiment("headrace/MoviePick10-v0", 4)
    with pytest.raises(
        ConfigError, match="replay.shards is 2, the checkpoint .*100 has 3; runtime serial .* set it to 3"
    ):
        play(config, run.path, checkpoint=run.checkpoints / "100")
    config = changed(config, replay={"shards": 3}, actors={"count": 3})
    with pytest.raises(ConfigError, match="100 has no replay, because its shards ran elsewhere"):
        play(config, run.path, checkpoint=run.checkpoints / "100")


def test_a_run_whose_last_checkpoint_fails_has_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distributed.manifest.write_json", full)
    config = experiment("headrace/MoviePick10-v0", 4)
    config = changed(config, run={"total_env_steps": 600, "checkpoint_every_env_steps": 0})
    with pytest.raises(CheckpointError, match="part: cannot be written: No space left"):
        play(config, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    result = json.loads(run.result.read_text())
    assert result["stopped_by"] == "total_env_steps" and result["env_steps"] >= 600
    assert result["evaluation"] is None and result["given_up_checkpoints"] == 3
    status = json.loads(run.status.read_text())
    assert status["state"] == "failed" and "No space left" in status["error"]


_HANGS = """
import os, signal, sys, threading, time
from pathlib import Path
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console
from kit.runs import changed, experiment
from distributed.driver import Clock, Driver
from distributed.progress import LiveView
from distributed.run_directory import RunDirectory
from distributed.serial_runtime import SerialRuntime
from distributed.stop_signal import StopSignal

stop = StopSignal()

def interrupt_twice():
    os.kill(os.getpid(), signal.SIGINT)
    while not stop.requested:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

def hang(*_, **__):
    threading.Thread(target=interrupt_twice).start()
    threading.Event().wait()

MemoryFileSystem.put_file = hang
run = {"total_env_steps": 600, "checkpoint_every_env_steps": 0, "checkpoint_url": "memory://bucket/run"}
config = changed(experiment("headrace/MoviePick10-v0", 4), run=run)
clock = Clock(time.monotonic, time.time)
view = LiveView("test", 1, None, clock.monotonic, Console(quiet=True))
with stop:
    try:
        Driver(config, SerialRuntime(config), RunDirectory.create(Path(sys.argv[1]), ""), view, clock).train(stop, None)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_a_second_ctrl_c_ends_a_driver_whose_checkpoint_hangs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HANGS, str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120.0, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
    [checkpoint] = RunDirectory(tmp_path / "run").complete_checkpoints()
    assert read_manifest(checkpoint)["env_steps"] >= 600, "the run's own is whole"
