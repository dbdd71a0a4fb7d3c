"""Calls that never send their message, more than a server has threads: everybody else is served."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest

from replay_server import Field, RecordSpec, connect, start_server

pytestmark = pytest.mark.integration

SPEC = RecordSpec((Field("number", "int64"),))
CALLS = 40
CHECK = "/grpc.health.v1.Health/Check"


@pytest.fixture
def half_open():
    """`half_open(address, method)`: calls that have begun and send nothing."""
    ended = threading.Event()
    channels = []

    def never():
        ended.wait(30)
        yield from ()

    def begin(address, method, metadata=()):
        channels.append(grpc.insecure_channel(address))
        grpc.channel_ready_future(channels[-1]).result(10)
        return [channels[-1].stream_unary(method).future(never(), metadata=metadata) for _ in range(CALLS)]

    yield begin
    ended.set()
    for channel in channels:
        channel.close()


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("correct-horse-battery-staple-0001\n")
    path.chmod(0o600)
    return str(path)


def use(address, timeout_s=4.0, **security):
    with connect([address], timeout_s=timeout_s, prefetch=0, **security) as replay:
        assert replay.insert({"number": np.arange(3)}).accepted == 3
        assert len(replay.sample(2)) == 2


@pytest.mark.parametrize("method", ["/headrace.Replay/Insert", "/grpc.health.v1.Health/Watch", "/nothing/At"])
def test_without_the_token_they_are_refused_unread(half_open, token_file, method):
    with start_server(SPEC, 100, token_file=token_file) as server:
        calls = half_open(server.address, method)
        use(server.address, token_file=token_file)
        assert {call.exception(10).code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}


def test_health_checks_are_answered_unread(half_open, token_file):
    with start_server(SPEC, 100, token_file=token_file) as server:
        calls = half_open(server.address, CHECK)
        assert {call.result(10) for call in calls} == {b"\x08\x01"}  # status: SERVING
        use(server.address, token_file=token_file)


@pytest.mark.parametrize("method", ["/headrace.Replay/Insert", "/grpc.health.v1.Health/Watch"])
def test_callers_who_are_let_in_lose_theirs_when_they_are_many(half_open, monkeypatch, method):
    monkeypatch.setattr("replay_server.arrivals.HURRIED_S", 0.4)
    monkeypatch.setattr("replay_server.arrivals._CHECK_S", 0.05)
    with start_server(SPEC, 100) as server:
        calls = half_open(server.address, method)
        deadline = time.monotonic() + 10
        while len(server._arrivals) < 32:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        use(server.address)
        while sum(call.done() and call.code() is grpc.StatusCode.CANCELLED for call in calls) < CALLS - 8:
            assert time.monotonic() < deadline + 10  # they hear of it a moment later
            time.sleep(0.005)
        while len(server._arrivals) > 8:
            assert time.monotonic() < deadline + 10
            time.sleep(0.005)
