"""A server under clients that are many, slow or strange: health, drain, busy, idle and noisy connections."""

from __future__ import annotations

import errno
import json
import random
import resource
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from replay_server import Field, HeadraceError, RateLimiter, RecordSpec, connect, start_server, wire
from replay_server.frames import Layout
from replay_server.messages import InsertRequest, SampleRequest, Updates
from replay_server.remote import RemoteShard

pytestmark = pytest.mark.integration

SPEC = RecordSpec((Field("number", "int64"),))
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def rows(count):
    return {"number": np.arange(count)}


def watch(address, service, seen):
    channel = grpc.insecure_channel(address)
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)

    def read():
        try:
            for answer in stream:
                seen.append(answer.status)
        except grpc.RpcError:
            pass
        channel.close()

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def wait_for(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_health_is_checked_and_watched_without_taking_threads():
    with start_server(SPEC, 100) as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for service in ("", "headrace.Replay"):
                assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == SERVING
        seen = [[] for _ in range(50)]  # more than the server has threads
        threads = [watch(server.address, "headrace.Replay", mine) for mine in seen]
        wait_for(lambda: all(mine == [SERVING] for mine in seen))
        with connect([server.address]) as replay:
            assert replay.insert(rows(10)).accepted == 10
    for thread in threads:
        thread.join(20)
    assert all(mine == [SERVING, NOT_SERVING] for mine in seen)


def test_a_shard_whose_disk_failed_is_not_healthy_but_samples(tmp_path, monkeypatch):
    def broken(handle):
        raise OSError(errno.EIO, "Input/output error")

    with start_server(SPEC, 100, durability="fsync", directory=str(tmp_path)) as server:
        seen = []
        thread = watch(server.address, "", seen)
        with connect([server.address], prefetch=0) as replay:
            replay.insert(rows(10))
            with monkeypatch.context() as patch:
                patch.setattr("replay_server.disk.os.fsync", broken)
                with pytest.raises(HeadraceError, match="Input/output error"):
                    replay.insert(rows(10))
            wait_for(lambda: seen == [SERVING, NOT_SERVING])
            assert len(replay.sample(4).keys) == 4
            assert "Input/output error" in replay.stats().shards[0].journal.trouble
    thread.join(20)


def test_a_stopping_server_answers_the_calls_it_has():
    server = start_server(SPEC, 100, rate_limiter=RateLimiter(50))
    port = RemoteShard(server.address, 10.0)
    waiting = [port.sample(SampleRequest(np.array([3]), 3.0, Updates(), 0.5)) for _ in range(8)]
    wait_for(lambda: len(server.shard._samples._waiters) == 8)
    server.stop()
    assert {call.result(5.0).blocked_on for call in waiting} == {"min_size"}
    port.close()


def test_a_busy_server_is_asked_again(monkeypatch):
    monkeypatch.setattr("replay_server.server._CALLS", 3)
    with start_server(SPEC, 100_000, rate_limiter=RateLimiter(50)) as server:
        port = RemoteShard(server.address, 10.0)
        chunk = SPEC.pack(rows(5))
        calls = [port.insert(InsertRequest(chunk, None, None, 0.2)) for _ in range(60)]
        assert sum(call.result(30.0).accepted for call in calls) == 300
        assert all(call.done() for call in calls)
        assert server.shard.stats().inserted == 300
        with grpc.insecure_channel(server.address) as channel:  # the limit was there
            method = channel.unary_unary("/headrace.Replay/Sample")
            asking = wire.encode_sample(SampleRequest(np.array([1]), 1.0, Updates(), 0.2), Layout(SPEC))
            port.clear()
            codes = [future.code() for future in [method.future(asking, timeout=10) for _ in range(40)]]
            assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
        port.close()


def test_idle_and_noisy_connections_do_not_hurt():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(1000, (hard if hard > 0 else 8192) // 4)  # server and clients are one process here
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * many)), hard))
    with start_server(SPEC, 100) as server:
        host, port = server.address.split(":")
        idle = []
        try:
            for turn in range(many):
                connection = socket.create_connection((host, int(port)), timeout=10)
                idle.append(connection)
                if turn % 10 == 0:
                    connection.sendall(rng.randbytes(200))
                elif turn % 10 == 1:
                    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(100))
            begin = time.monotonic()
            with connect([server.address]) as replay:
                for _ in range(10):
                    assert replay.insert(rows(5)).accepted == 5
                    assert len(replay.sample(20)) == 20
                assert json.loads(json.dumps(replay.stats().size)) == 50
            assert time.monotonic() - begin < 20.0
            server.shard.check_valid()
        finally:
            for connection in idle:
                connection.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_request_beyond_the_limit_is_refused_and_changes_nothing():
    with start_server(SPEC, 1 << 20) as server:
        port = RemoteShard(server.address, 10.0, transport="grpc")
        too_many = SPEC.pack(rows(wire.max_request_bytes(SPEC) // SPEC.record_size + 1))
        with pytest.raises(wire.InvalidRecord, match="larger than max"):
            port.insert(InsertRequest(too_many, None, None, 0.0)).result(10.0)
        assert server.shard.stats().inserted == 0
        port.close()
