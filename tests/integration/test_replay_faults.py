"""What goes wrong on a port: garbage, mismatches, dead and stopped shards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from replay_server import (
    CheckpointError,
    ConfigError,
    Field,
    RateLimiter,
    RecordSpec,
    ReplayTimeout,
    SchemaMismatch,
    Unavailable,
    connect,
    start_server,
    wire,
)
from replay_server.frames import Layout
from replay_server.messages import InsertRequest, SampleRequest, Updates

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
SPEC = RecordSpec((Field("x", "float32", (4,)), Field("a", "int64")), {"gamma": "0.99"})
LAYOUT = Layout(SPEC)
YAML = {
    "spec": {
        "fields": [{"name": "x", "dtype": "float32", "shape": [4]}, {"name": "a", "dtype": "int64"}],
        "semantics": {"gamma": "0.99"},
    },
    "capacity": 1000,
}
_SERVE = (
    "import json, sys, msgspec; from replay_server.shard_config import ShardConfig; "
    "from replay_server.serving import serve; serve(msgspec.convert(json.loads(sys.argv[1]), ShardConfig))"
)


def rows(count):
    return {"x": np.ones((count, 4), np.float32), "a": np.arange(count)}


class ShardProcess:
    """A shard in a process of its own."""

    def __init__(self, **settings):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps({**YAML, **settings})],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.line = self.process.stdout.readline()
        self.address = self.line.removeprefix("serving replay at ").split(" ")[0]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def shard_process():
    started = []

    def start(**settings):
        started.append(ShardProcess(**settings))
        return started[-1]

    yield start
    for shard in started:
        shard.stop()


@pytest.fixture
def server(tmp_path):
    with start_server(SPEC, 1000, directory=str(tmp_path / "allowed")) as running:
        yield running


def raw_call(address, method, frame):
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        return channel.unary_unary(f"/headrace.Replay/{method}")(frame, timeout=20)


def test_another_layout_or_other_semantics_are_named(server):
    other = RecordSpec((Field("x", "float32", (5,)), Field("b", "int64")), {"gamma": "0.9"})
    with pytest.raises(SchemaMismatch) as caught:
        connect([server.address], spec=other)
    for word in ("float32[5] here, float32[4] there", "'a' is missing here", "'b' is int64[] here", "gamma"):
        assert word in str(caught.value)
    with pytest.raises(grpc.RpcError) as refused:
        frame = wire.encode_insert(
            InsertRequest(other.pack({"x": np.ones((1, 5), "f4"), "b": np.ones(1, int)}), None, None, 0.0),
            Layout(other),
        )
        raw_call(server.address, "Insert", frame)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert connect([server.address]).spec == SPEC


def test_a_port_in_use_is_named(server):
    with pytest.raises(ConfigError, match=server.address) as caught:
        start_server(SPEC, 10, address=server.address)
    assert "\n" not in str(caught.value)
    with connect([server.address], spec=SPEC) as replay:
        assert replay.insert(rows(2)).accepted == 2


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.168.7.7:7400", "example.org:80", "7400", "127.0.0.1", "[::]:0"])
def test_only_loopback_is_served_without_security(address):
    with pytest.raises(ConfigError, match=r"can be reached from other machines|HOST:PORT"):
        start_server(SPEC, 10, address=address)


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    begin = time.monotonic()
    with pytest.raises(Unavailable, match=address):
        connect([address], timeout_s=0.5)
    assert time.monotonic() - begin < 15.0


def test_saving_is_confined_to_the_servers_directory(server, tmp_path):
    with connect([server.address]) as replay:
        replay.insert(rows(5))
        for outside in ("..", "../other", str(tmp_path), "/etc"):
            with pytest.raises(CheckpointError, match="outside"):
                replay.save(outside)
        assert replay.save("run/7") == ["replay-0.h5"]
        assert replay.save(str(tmp_path / "allowed" / "run" / "8")) == ["replay-0.h5"]
    assert (tmp_path / "allowed" / "run" / "7" / "replay-0.h5").exists()
    with (
        start_server(SPEC, 1000) as closed,
        connect([closed.address]) as replay,
        pytest.raises(CheckpointError, match="without a directory"),
    ):
        replay.save(".")


def test_a_save_that_is_begun_is_asked_after(server, tmp_path):
    with connect([server.address]) as replay:
        replay.insert(rows(5))
        for call in (replay.begin_save, replay.saved):
            with pytest.raises(CheckpointError, match="outside"):
                call("..")
        with pytest.raises(CheckpointError, match="shard 0 has not begun .*run/7/replay-0.h5: it was started anew"):
            replay.saved("run/7")
        (tmp_path / "allowed").mkdir(exist_ok=True)
        (tmp_path / "allowed" / "run").write_text("in the way")
        replay.begin_save("run/7")
        with pytest.raises(CheckpointError, match="run/7/replay-0.h5: cannot write the snapshot"):
            wait_for_file(replay, "run/7")
        (tmp_path / "allowed" / "run").unlink()
        replay.begin_save("run/8")
        wait_for_file(replay, "run/8")
        with pytest.raises(CheckpointError, match="has not begun .*run/7"):
            replay.saved("run/7")
    assert [file.name for file in (tmp_path / "allowed" / "run" / "8").iterdir()] == ["replay-0.h5"]


def wait_for_file(replay, directory):
    deadline = time.monotonic() + 60.0
    while not all(file.done for file in replay.saved(directory)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_updates_from_before_a_restore_change_nothing(server, tmp_path):
    with connect([server.address], prefetch=0) as replay:
        replay.insert(rows(20))
        keys = replay.sample(50).keys
        replay.save(".")
    saved = str(tmp_path / "allowed" / "replay-0.h5")
    with (
        start_server(SPEC, 1000, restore_from=saved) as restored,
        connect([restored.address], spec=SPEC, prefetch=0) as replay,
    ):
        replay.update_priorities(keys, np.full(50, 99.0))
        batch = replay.sample(20)
        assert replay.flush().stale == 50
        assert replay.stats().size == 20
        assert replay.stats().shards[0].priority_mass == 20.0
        replay.update_priorities(batch.keys, np.full(20, 99.0))
        assert replay.flush().applied == 20


def test_sigterm_drains_and_exits_with_zero(shard_process):
    shard = shard_process()
    assert shard.line.startswith("serving replay at 127.0.0.1:")
    assert "1,000 x 32 B = 0.0 MiB + tree" in shard.line
    with connect([shard.address], spec=SPEC) as replay:
        replay.insert(rows(10))
        assert len(replay.sample(4)) == 4
        shard.process.send_signal(signal.SIGTERM)
        assert shard.process.wait(10) == 0
    assert shard.process.stdout.read() == ""


@pytest.mark.parametrize("starting", [False, True])
def test_a_shard_ends_with_its_parent(starting):
    """Also when the parent ends while the shard is still starting."""
    script = (
        "import json, os, subprocess, sys, time\n"
        "os.environ['HEADRACE_PARENT'] = str(os.getpid())\n"
        f"p = subprocess.Popen([sys.executable, '-c', {_SERVE!r}, sys.argv[1]], stdout=subprocess.PIPE, text=True)\n"
        f"print(p.pid, '' if {starting} else p.stdout.readline(), flush=True)\n"
        "time.sleep(60)\n"
    )
    settings = json.dumps(YAML)
    parent = subprocess.Popen([sys.executable, "-c", script, settings], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline().split()[0])
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    deadline = time.monotonic() + 15
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_shard_is_left_out_at_once_and_used_again_when_it_is_back(shard_process):
    first = shard_process()
    other = shard_process(shard_index=1, seed=1)
    with connect([first.address, other.address], spec=SPEC, prefetch=4) as replay:
        for count in (10, 20):
            replay.insert(rows(count))
        assert replay.sample(16).table_size == 30
        with replay.writer(shard=0) as writer:
            first.process.kill()
            first.process.wait(10)
            begin = time.monotonic()
            while (batch := replay.sample(16, timeout_s=5.0)).table_size != 20:
                assert time.monotonic() - begin < 15.0
            assert set(batch.keys["shard"].tolist()) == {1}
            np.testing.assert_allclose(batch.probabilities, 1 / 20)
            dead, alive = replay.stats().shards
            assert (dead.state, dead.size, alive.state, alive.size) == ("unreachable", 0, "serving", 20)
            assert first.address in dead.reason
            assert replay.insert(rows(3)).accepted == replay.insert(rows(3)).accepted == 3
            writer.append(rows(5), timeout_s=0.1)
            assert writer.flush(timeout_s=0.3).unknown == 5
            shard_process(address=first.address, seed=2)
            writer.append(rows(6), timeout_s=5.0)
            assert writer.flush(timeout_s=10.0).accepted == 6
        deadline = time.monotonic() + 10
        while len(set(replay.sample(64).keys["shard"].tolist())) < 2:
            assert time.monotonic() < deadline
        assert [s.state for s in replay.stats().shards] == ["serving"] * 2


def test_a_stopped_shard_runs_into_the_callers_deadline(shard_process):
    shard = shard_process()
    with connect([shard.address], spec=SPEC, prefetch=2) as replay:
        replay.insert(rows(10))
        replay.sample(4)
        os.kill(shard.process.pid, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(ReplayTimeout) as caught:
            while True:
                replay.sample(4, timeout_s=0.5)
        assert caught.value.blocked_on == "reply"
        assert replay.insert(rows(3), timeout_s=0.5).unknown == 3
        assert time.monotonic() - begin < 15.0
        os.kill(shard.process.pid, signal.SIGCONT)
        assert len(replay.sample(4, timeout_s=20.0)) == 4


def test_many_blocked_callers_do_not_starve_the_others():
    with start_server(SPEC, 1000, rate_limiter=RateLimiter(100)) as server:
        stop = threading.Event()

        def wait_in_vain():
            frame = wire.encode_sample(SampleRequest(np.array([1]), 1.0, Updates(), 0.5), LAYOUT)
            with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                call = channel.unary_unary("/headrace.Replay/Sample")
                while not stop.is_set():
                    reply = wire.decode_sample_reply(call(frame, timeout=10), LAYOUT)
                    assert reply.blocked_on == "min_size" or len(reply.records) == 1
                    time.sleep(0.05)

        threads = [threading.Thread(target=wait_in_vain) for _ in range(40)]
        for thread in threads:
            thread.start()
        try:
            with connect([server.address], prefetch=0) as replay:
                time.sleep(0.3)
                begin = time.monotonic()
                for _ in range(20):
                    assert replay.insert(rows(2)).accepted == 2
                    replay.stats()
                assert time.monotonic() - begin < 10.0
                replay.insert(rows(100))
                assert len(replay.sample(10)) == 10
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import replay_server", ("torch", "ray", "grpc", "numba", "h5py", "gymnasium")),
        ("from replay_server import connect", ("torch", "ray", "numba", "h5py", "gymnasium")),
        ("from replay_server.remote import RemoteShard", ("torch", "ray", "numba", "h5py")),
        ("from replay_server import start_server", ("torch", "ray", "gymnasium")),
    ],
)
def test_importing_stays_light(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent!r} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
