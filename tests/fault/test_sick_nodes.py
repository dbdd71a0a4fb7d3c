"""Nodes that are no good: one where no worker starts, one whose disk is full, one that stands still, one that dies."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.processes import command_line

from distributed.run_directory import RunDirectory
from fault.ray_hosts import Node, Training, TwoHosts, two_ray_hosts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

_SMALL = [
    "--actors.count", "3", "--environment.num-envs", "8", "--algorithm.hidden-sizes", "[16]",
    "--replay.capacity", "1000000", "--replay.min-size", "500", "--replay.transport", "grpc", "--replay.shards", "1",
    "--learner.samples-per-insert", "1", "--evaluation.every-env-steps", "0", "--run.metrics-every-env-steps", "500",
    "--run.checkpoint-every-env-steps", "1000", "--run.keep-checkpoints", "1",
    "--run.total-env-steps", "1e9", "--run.max-seconds", "10000",
]  # fmt: skip
_DISK_MB = 64
_STILL_SECONDS = 30.0
_LEFT_BYTES = 200 << 10  # less than a snapshot, and more than the actors need to come to the next checkpoint


@pytest.fixture(scope="module")
def hosts(soak: Any) -> Iterator[TwoHosts]:
    """A head with room for learner and two actors; a node without torch, which offers a processor all the same."""
    if not soak.full:
        pytest.skip("takes minutes; a cable that is cut is in test_two_hosts.py, a dead node in test_ray_cluster.py")
    with two_ray_hosts() as made:
        made.start_head()
        made.start_node(processors=1, mounts={Path(torch.__file__).parent: 1})
        yield made


@pytest.fixture(scope="module")
def shards_node(hosts: TwoHosts) -> Node:
    """Has a small disk of its own where the run directory is."""
    return hosts.start_node(shards=1, mounts={hosts.runs: _DISK_MB})


@pytest.fixture(scope="module")
def run(hosts: TwoHosts, shards_node: Node) -> Training:
    return hosts.train("cartpole_dqn", *_SMALL)


def seen_by(node: Node, path: Path) -> Path:
    """A directory as a node sees it."""
    return Path(f"/proc/{node.pids()[0]}/root{path}")


def test_a_full_disk_stops_inserts_until_there_is_room(run: Training, hosts: TwoHosts, shards_node: Node) -> None:
    """A checkpoint that finds no room is given up; actors wait and say for what, and go on by themselves."""
    run.until(lambda: run.env_steps() > 10_000)
    ballast = seen_by(shards_node, hosts.runs) / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(65536))
        file.truncate(file.tell() - _LEFT_BYTES)
    try:
        run.until(lambda: "was given up: " in run.said and "waits for actors: disk" in run.said)
        [shard] = run.look()
        assert shard["state"] == "serving"
        given_up = [line for line in run.said.splitlines() if "was given up: " in line]
        assert any("No space left on device" in line for line in given_up), given_up
    finally:
        ballast.unlink()
    run.gets_on(2000)
    checkpoints = RunDirectory(run.directory).complete_checkpoints
    newest = int(checkpoints()[-1].name) if checkpoints() else 0
    run.until(lambda: bool(checkpoints()) and int(checkpoints()[-1].name) > newest)


def test_a_node_that_stands_still_is_waited_for(run: Training, shards_node: Node, figures: Any) -> None:
    """Everything on it, Ray's own processes too."""
    [before] = run.look()
    begin = time.monotonic()
    shards_node.signal(signal.SIGSTOP)
    try:
        run.until(lambda: time.monotonic() > begin + _STILL_SECONDS)
    finally:
        shards_node.signal(signal.SIGCONT)
    woken = time.monotonic()
    run.gets_on(1000)
    figures.note(went_on_after_s=round(time.monotonic() - woken, 1))
    [after] = run.look()
    assert after["inserted"] > before["inserted"] and after["size"] == after["inserted"]  # nothing lost
    assert "that it had acknowledged are lost" not in run.said


def test_a_node_where_no_worker_starts_costs_the_actor_that_was_placed_there(run: Training) -> None:
    """Six failures with growing pauses between them, then its place is given up."""
    run.until(lambda: "quarantined: rollout actor" in run.said)
    assert len(re.findall("quarantined: rollout actor . failed 6 times in a row", run.said)) == 1
    run.gets_on(1000)


def test_what_a_journal_of_the_dead_nodes_own_held_is_counted(
    run: Training, hosts: TwoHosts, shards_node: Node
) -> None:
    """The next node does not see that journal: the shard is what it was at the newest checkpoint.

    The learner stands still meanwhile, so that there is no newer checkpoint and actors come to rest at the limiter.
    """
    hosts.start_node(shards=1, mounts={hosts.runs: _DISK_MB})
    [learner] = [pid for pid in hosts.cable.pids("client") if "ray::LearnerWorker" in command_line(pid)]
    os.kill(learner, signal.SIGSTOP)
    try:
        run.gets_on(1000)
        [before] = run.look()
        deadline = time.monotonic() + 120
        while (again := run.look()[0])["inserted"] != before["inserted"] or again["blocked_on"] != "samples":
            assert time.monotonic() < deadline, again
            before = again
        shards_node.signal(signal.SIGKILL)
        run.until(lambda: "that it had acknowledged are lost" in run.said)
    finally:
        os.kill(learner, signal.SIGCONT)
    told = re.findall(r"is back after .* s with ([\d,]+) records; ([\d,]+) that it had acknowledged are lost", run.said)
    [(records, lost)] = [[int(number.replace(",", "")) for number in numbers] for numbers in told]
    assert records > 0 and lost > 500 and records + lost == before["inserted"] == before["size"]
    run.gets_on(1000)
    document = run.interrupt()
    assert document["lost_transitions"] == lost and document["quarantined_actors"] == 1
