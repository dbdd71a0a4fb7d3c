"""A whole run over two hosts with a cable between them: what crosses it, who is turned away, and what a cut does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kit.processes import command_line

from fault.ray_hosts import TOKEN, Training, TwoHosts, two_ray_hosts
from replay_server.wire import METHODS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_SMALL = [
    "--environment.num-envs", "16", "--algorithm.hidden-sizes", "[16]", "--algorithm.batch-size", "64",
    "--replay.capacity", "1000000", "--replay.min-size", "500", "--replay.transport", "grpc",
    "--learner.samples-per-insert", "1", "--evaluation.every-env-steps", "0", "--run.metrics-every-env-steps", "500",
    "--run.checkpoint-every-env-steps", "0", "--run.total-env-steps", "1e9", "--run.max-seconds", "10000",
]  # fmt: skip
_CUT_S = 20.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_ray_hosts() as made:
        made.start_head()
        made.start_node(shards=2)
        yield made


@pytest.fixture(scope="module")
def run(hosts: TwoHosts) -> Training:
    """Two shards on one host, all else on the other; two rows of metrics are there."""
    training = hosts.train("movie_pick_dqn", *_SMALL)
    training.until(lambda: len(training.rows()) >= 2)
    assert len(training.shards()) == 2
    assert {place.rpartition(":")[0] for place in training.shards().values()} == {hosts.cable.shard_ip}
    return training


@contextmanager
def at_rest(hosts: TwoHosts) -> Iterator[None]:
    """Driver, actors and learner stand still."""
    titles = ("headrace train", "ray::RolloutWorker", "ray::LearnerWorker", "ray::EvaluatorWorker")
    pids = [pid for pid in hosts.cable.pids("client") if any(title in command_line(pid) for title in titles)]
    assert len(pids) >= 4
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def content(shards: list[dict[str, Any]]) -> list[list[Any]]:
    """All that a call could have changed."""
    names = ("size", "inserted", "sampled", "priority_mass", "updated", "stale", "sessions", "fenced", "drawn")
    return [[shard[name] for name in names] for shard in shards]


FRAME, PREFACE = "HDRC", "PRI * HTTP/2.0"
"""What every frame of the wire begins with, and every connection of gRPC without TLS."""


def listen(hosts: TwoHosts, *words: str) -> subprocess.Popen[str]:
    """A listener on the cable."""
    command = [*hosts.cable.shard_side, sys.executable, "-m", "fault.listener", "shard", *words]
    listener = subprocess.Popen(command, env=hosts.env, stdout=subprocess.PIPE, text=True)
    assert listener.stdout is not None and listener.stdout.readline() == "listening\n"
    return listener


def test_strangers_are_refused_and_counted_and_change_nothing(hosts: TwoHosts, run: Training) -> None:
    """Every method of the wire, from another host than the shards': without token, with a wrong one, in plain text."""
    wrong = hosts.place / "wrong_token"
    wrong.write_text(TOKEN[:-1] + "x")
    wrong.chmod(0o600)
    hears = listen(hosts, FRAME, PREFACE)
    run.gets_on(500)
    with at_rest(hosts):
        before = run.look()
        for _ in range(10):  # calls that waited when the others stood still end
            if content(again := run.look()) == content(before):
                break
            before = again
        [address, _] = sorted(run.shards().values())
        tried = hosts.ask("fault.stranger", address, str(run.authority()), str(wrong))
        after = run.look()
    codes = tried["codes"]
    assert codes["no_token"] == codes["wrong_token"] == ["UNAUTHENTICATED"] * len(METHODS)
    assert codes["plain"] == ["UNAVAILABLE"] * len(METHODS)
    told = tried["told"]
    assert told["no_token"][0] == told["wrong_token"][0] == told["other_authority"][0] == "Unauthenticated"
    assert told["plain"][0] == "Unauthenticated" and "speaks TLS" in told["plain"][1]
    assert told["token_in_plain"][0] == "ConfigError" and "would travel to" in told["token_in_plain"][1]
    assert content(before) == content(after)
    assert before[0]["refusals"].get("Unauthenticated", 0) == 0
    assert after[0]["refusals"]["Unauthenticated"] == 2 * len(METHODS) + 2  # and twice `connect`
    assert "Unauthenticated" not in after[1]["refusals"]
    run.gets_on(500)
    hears.terminate()
    heard = json.loads(hears.communicate(timeout=30)[0])
    # The strangers' plain text is heard, of the run's own records none.
    assert heard["packets"] > 100 and heard["seen"][PREFACE] > 0 and heard["seen"][FRAME] == 0, heard


def test_a_cut_of_twenty_seconds_heals(hosts: TwoHosts, run: Training, figures: Any) -> None:
    """Everybody waits and says for what; then training goes on, and no acknowledged record was lost."""
    hosts.cable.cut()
    cut = time.monotonic()
    try:
        run.until(lambda: "waits for actors: shard, learner: shard" in run.said)
        stood = run.env_steps()
        run.until(lambda: time.monotonic() > cut + _CUT_S)
        assert run.env_steps() == stood
    finally:
        hosts.cable.rules()
    healed = time.monotonic()
    run.gets_on(2000)
    figures.note(went_on_after_s=round(time.monotonic() - healed, 1))
    assert any(row["time"]["blocked_on"].get("actors") == "shard" for row in run.rows())
    told = run.look()
    assert [shard["state"] for shard in told] == ["serving"] * 2
    document = run.interrupt()
    assert document["lost_transitions"] == 0 and document["fenced_transitions"] == 0
    assert document["restarts"] <= 2  # a shard's host whose call was lost with the cable is started again
    # Nothing was overwritten, so that all that was made is there but for open n-step windows and what is under way.
    assert document["replay_size"] > document["env_steps"] - 1000
