"""A run over several nodes: they come, they are killed, training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ray
from kit.runs import experiment
from ray.cluster_utils import Cluster

from distributed import ray_processes
from distributed.config_loading import dump_yaml
from distributed.ray_runtime import RayRuntime
from distributed.run_directory import RunDirectory
from distributed.runtime import Origin, Progress
from replay_server import connect
from replay_server.errors import Unauthenticated

_SECONDS = 240.0
_RATE_SECONDS = 3.0
_RECOVERED = 0.8


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
            assert time.monotonic() < deadline, (self.env_steps, self.updates, self.runtime.casualties())
            self.take_in(self.runtime.advance())

    def rate(self, seconds: float) -> float:
        """Environment steps a second of all actors together, from now on."""
        begin, had = time.monotonic(), sum(self.env_steps.values())
        self.until(lambda: time.monotonic() >= begin + seconds)
        return (sum(self.env_steps.values()) - had) / (time.monotonic() - begin)


@pytest.mark.timeout(1200)
def test_nodes_come_and_are_killed_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Any
) -> None:
    """Three nodes: driver and learner, shards, actors. Actors join with a fourth; then the shards' node dies.

    Throughput has recovered when actors make as many steps a second as before, a fifth aside.
    """
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else anything on this machine starves the workers
    monkeypatch.setattr(ray_processes, "_PATIENCE_SECONDS", 5.0)  # for the actor that has no room yet
    config = experiment("headrace/MoviePick10-v0", 4)
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    nodes = (
        {**small, "resources": {"learner": 1}, "include_dashboard": False},
        {**small, "num_cpus": 0, "resources": {"replay": 2}},
        {**small},
    )
    with cluster_of(*nodes) as (cluster, (shards_node, _)):
        config = msgspec.structs.replace(
            config,
            runtime="ray",
            ray=msgspec.structs.replace(config.ray, address=cluster.address),
            actors=msgspec.structs.replace(config.actors, count=2),
            replay=msgspec.structs.replace(config.replay, transport="grpc"),
        )
        run = RunDirectory.create(tmp_path / "run", dump_yaml(config))
        runtime = RayRuntime(config, run)
        try:
            runtime.start(Origin(None, None, (0, 0), 0))
            running = Running(runtime)
            running.until(lambda: running.updates > 0 and len(running.env_steps) > 0)
            assert len(running.env_steps) == 1  # there is room for one
            first = runtime.replay_stats()
            hosts = {shard.address.rpartition(":")[0] for shard in first.shards}
            assert "127.0.0.1" not in hosts
            with pytest.raises(Unauthenticated):
                connect([first.shards[0].address], timeout_s=5.0)

            cluster.add_node(**small)
            running.until(lambda: len(running.env_steps) == 2)

            cluster.add_node(**{**small, "num_cpus": 0, "resources": {"replay": 2}})
            usual = running.rate(_RATE_SECONDS)
            before, inserted = dict(running.env_steps), runtime.replay_stats().inserted
            cluster.remove_node(shards_node, allow_graceful=False)
            killed = time.monotonic()
            running.until(lambda: runtime.casualties().restarts >= 2)
            running.until(lambda: all(running.env_steps[i] > before[i] + 500 for i in before))
            # A client asks shards that it has left out again after pauses of up to two seconds.
            running.until(lambda: all(shard.state == "serving" for shard in runtime.replay_stats().shards))
            running.until(lambda: running.rate(_RATE_SECONDS) >= _RECOVERED * usual)
            figures.note(usual_env_steps_per_second=round(usual), recovered_s=round(time.monotonic() - killed, 1))
            after = runtime.replay_stats()
            # The journals lie where both nodes see them: nothing that was acknowledged is lost.
            assert after.inserted > inserted and runtime.casualties().lost_transitions == 0
        finally:
            runtime.stop()
    assert not run.journals.exists() or list(run.journals.glob("*/*")) == []
