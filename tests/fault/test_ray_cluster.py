"""A run over several nodes: they come, they are killed, training goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
import ray
from kit.runs import changed, experiment
from kit.stamped import check_stamps, stamps_of
from ray.cluster_utils import Cluster

from distributed import ray_processes
from distributed.checkpoints import Checkpoints
from distributed.config import ExperimentConfig
from distributed.config_loading import dump_yaml
from distributed.processes import Role
from distributed.ray_runtime import RayRuntime
from distributed.run_directory import RunDirectory, replay_snapshots
from distributed.runtime import Origin, Progress
from fault.processes import ROOT
from replay_server import connect
from replay_server.errors import Unauthenticated

_SECONDS = 240.0
_RATE_SECONDS = 3.0
_RECOVERED = 0.8
_FURTHER = 500
_SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}
_WORK = {**_SMALL, "resources": {"learner": 1, "replay": 2}}
"""A node with room for the learner, which takes its processor, and for the shards."""


@contextmanager
def cluster_of(*nodes: dict[str, Any]) -> Iterator[tuple[Cluster, list[Any]]]:
    """A Ray on this machine whose nodes have these resources, the first with the driver."""
    head, *others = nodes
    cluster = Cluster(initialize_head=True, head_node_args=head)
    started = [cluster.add_node(**resources) for resources in others]
    try:
        yield cluster, started
    finally:
        ray.shutdown()
        cluster.shutdown()


class Running:
    """A runtime at work, and what its actors and learner last told."""

    def __init__(self, runtime: RayRuntime) -> None:
        self.runtime = runtime
        self.env_steps: dict[int, int] = {}
        self.updates = 0

    def take_in(self, progress: Progress) -> None:
        self.env_steps |= {index: report.env_steps for index, report in progress.actors.items()}
        for report in progress.learner:
            self.updates = report.updates

    def until(self, condition: Callable[[], bool], seconds: float = _SECONDS) -> None:
        """Go on until something is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.env_steps, self.updates, self.runtime.workers())
            self.take_in(self.runtime.advance())

    def rate(self, seconds: float) -> float:
        """Environment steps a second of all actors together, from now on."""
        begin, had = time.monotonic(), sum(self.env_steps.values())
        self.until(lambda: time.monotonic() >= begin + seconds)
        return (sum(self.env_steps.values()) - had) / (time.monotonic() - begin)

    def stages(self) -> list[str]:
        """Of the actors, sorted."""
        return sorted(worker.stage for worker in self.runtime.workers() if worker.role is Role.ACTOR)

    def stored(self, run: RunDirectory) -> np.ndarray:
        """Stamps of all steps that the shards hold, from a checkpoint that is made for it."""
        checkpoints = Checkpoints(self.runtime, run, 1, time.monotonic, print, None)
        cuts = []
        checkpoints.begin(1, scheduled=True)
        self.until(lambda: (cut := checkpoints.cut()) is not None and cuts.append(cut) is None)
        checkpoints.complete(cuts[0], {"env_steps": 1, "scheduled": True}, {})
        checkpoints.wait()
        assert checkpoints.failure is None
        files = replay_snapshots(run.complete_checkpoints()[-1])
        return np.concatenate([observations(file) for file in files])


def observations(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return stamps_of(file["columns/observation"][: int(file.attrs["size"])])


def over_nodes(cluster: Cluster, beats: Path) -> ExperimentConfig:
    """Two actors and two shards; nothing is ever overwritten."""
    beats.mkdir()
    stamped = {"beats": str(beats), "step_seconds": 0.002}
    config = changed(
        experiment("kit.stamped:Stamped", 4, kwargs=stamped),
        ray={"address": cluster.address},
        replay={"transport": "grpc", "capacity": 1_000_000},
    )
    return msgspec.structs.replace(config, runtime="ray")


@pytest.mark.timeout(1200)
def test_nodes_come_and_are_killed_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Any
) -> None:
    """Three nodes: driver; learner and shards; an actor. Another actor joins with a fourth.

    Then the node of learner and shards is killed, and throughput recovers on a fifth: actors make as many steps a
    second as before, a fifth aside. Then a node with an actor is killed, and the actor comes back with a sixth.
    """
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else anything on this machine starves the workers
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setattr(ray_processes, "_PATIENCE_SECONDS", 5.0)  # for the actor that has no room yet
    with cluster_of({**_SMALL, "num_cpus": 0, "include_dashboard": False}, _WORK, _SMALL) as (cluster, (work, _)):
        config = over_nodes(cluster, tmp_path / "beats")
        run = RunDirectory.create(tmp_path / "run", dump_yaml(config))
        runtime = RayRuntime(config, run)
        try:
            runtime.start(Origin(None, None, (0, 0), 0))
            running = Running(runtime)
            running.until(lambda: running.updates > 0 and len(running.env_steps) > 0)
            assert running.stages() == ["acts", "starts"]  # there is room for one
            first = runtime.replay_stats()
            assert "127.0.0.1" not in {shard.address.rpartition(":")[0] for shard in first.shards}
            with pytest.raises(Unauthenticated):
                connect([first.shards[0].address], timeout_s=5.0)

            joined = cluster.add_node(**_SMALL)
            running.until(lambda: len(running.env_steps) == 2)

            cluster.add_node(**_WORK)
            usual = running.rate(_RATE_SECONDS)
            before, running.updates = dict(running.env_steps), 0
            cluster.remove_node(work, allow_graceful=False)
            killed = time.monotonic()
            running.until(lambda: runtime.casualties().restarts >= 3 and running.updates > 0)
            running.until(lambda: all(running.env_steps[i] > before[i] + _FURTHER for i in before))
            running.until(lambda: running.rate(_RATE_SECONDS) >= _RECOVERED * usual)
            figures.note(usual_env_steps_per_second=round(usual), recovered_s=round(time.monotonic() - killed, 1))
            assert runtime.casualties().lost_transitions == 0

            cluster.remove_node(joined, allow_graceful=False)
            running.until(lambda: running.stages() == ["acts", "starts"])
            alone = sum(running.env_steps.values())
            running.until(lambda: sum(running.env_steps.values()) > alone + _FURTHER)
            cluster.add_node(**_SMALL)
            running.until(lambda: running.stages() == ["acts", "acts"])
            back = dict(running.env_steps)
            running.until(lambda: all(running.env_steps[i] > back[i] + _FURTHER for i in back))
            # A client asks shards that it has left out again after pauses of up to two seconds.
            running.until(lambda: all(shard.state == "serving" for shard in runtime.replay_stats().shards))
            # The journals lie where both nodes see them: nothing that was acknowledged is lost, nothing is there twice.
            stamps = running.stored(run)
            check_stamps(stamps, complete=True)
            assert len(np.unique(stamps[:, 0])) == 3  # of three processes of actors
        finally:
            runtime.stop()
    assert not run.journals.exists() or list(run.journals.glob("*/*")) == []
