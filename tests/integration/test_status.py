"""`headrace status`: what it shows of shards that work, wait or are not there."""

import json
import re
import socket
import threading
import time

import numpy as np
import pytest

from distributed.cli import main
from distributed.status_screen import lines
from replay_server import Field, RateLimiter, RecordSpec, connect, start_server
from replay_server.messages import SampleRequest, Updates
from replay_server.rates import rates
from replay_server.replay import Calls, ShardStats, Waits

SPEC = RecordSpec((Field("x", "float32"),))


def stats(**changes):
    latency = [0] * 15
    latency[3], latency[-1] = changes.pop("fast", 0), changes.pop("slow", 0)
    calls = {"Insert": Calls(sum(latency), 1.0, 1000 * sum(latency), 10, tuple(latency))}
    return ShardStats("a:1", 10, 100, 0, 0.0, 1.0, changes.pop("fenced", 0), None, calls=calls, **changes)


def test_rates_are_differences_by_the_shards_own_time():
    before = stats(uptime_s=10.0, fast=5)
    after = stats(uptime_s=12.0, fast=103, slow=2, drawn=80, updated=10, stale=4, waits={"samples": Waits(3, 3.0)})
    now = rates(before, after)
    assert (now.drawn, now.updated, now.stale, now.inserted) == (40.0, 5.0, 2.0, 0.0)
    assert now.calls == {"Insert": 50.0}
    assert (now.median_s, now.p99_s) == ({"Insert": 0.0005}, {"Insert": None})
    assert (now.bytes_in, now.bytes_out) == (50_000.0, 0.0)
    assert now.waiting == {"samples": 1.5}


def test_a_shard_that_started_again_between_two_looks_counts_from_its_start():
    now = rates(stats(uptime_s=900.0, drawn=9000, fast=7), stats(uptime_s=2.0, drawn=80, fast=4))
    assert (now.drawn, now.calls) == (40.0, {"Insert": 2.0})


def test_the_screen_says_who_waits_for_what_and_what_was_refused():
    after = stats(uptime_s=7302.0, waits={"inserts": Waits(9, 1.5)}, refusals={"InvalidRecord": 3}, fenced=1200)
    text = "\n".join(lines("10.0.0.1:7400", stats(uptime_s=7301.0), after))
    assert "at 10.0.0.1:7400" in text and "for 2 h 2 min" in text
    assert "10 of 100 (10%)" in text
    assert "sampling waits for inserts: the learner is ahead of the writers (1.5 calls at a time)" in text
    assert "1,200 records of replaced writers, 3 calls: InvalidRecord" in text
    assert "nobody" in "\n".join(lines("10.0.0.1:7400", stats(uptime_s=1.0), stats(uptime_s=2.0)))


@pytest.fixture
def free_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    return address


@pytest.mark.integration
def test_several_shards_as_text_and_json(capsys):
    with (
        start_server(SPEC, 100, shard_index=4) as first,
        start_server(SPEC, 200, shard_index=5, rate_limiter=RateLimiter(8)) as second,
        connect([first.address], prefetch=0) as replay,
    ):
        replay.insert({"x": np.arange(60, dtype=np.float32)})
        stop = threading.Event()

        def wait_for_records():
            while not stop.is_set():
                second.shard.sample(SampleRequest(np.array([4]), 4.0, Updates(), 0.2))

        def insert():
            while not stop.is_set():
                replay.insert({"x": np.arange(10, dtype=np.float32)})
                time.sleep(0.01)

        threads = [threading.Thread(target=work) for work in (wait_for_records, insert)]
        for thread in threads:
            thread.start()
        try:
            assert main(["status", first.address, second.address]) == 0
            text = capsys.readouterr().out
            assert main(["status", first.address, second.address, "--json"]) == 0
            document = json.loads(capsys.readouterr().out)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    blocks = text.strip().split("\n\n")
    assert [re.match(r"shard (\d)", block)[1] for block in blocks] == ["4", "5"]
    assert re.search(r"[1-9]\d* records/s in", blocks[0]) and "0 records/s in" in blocks[1]
    assert "sampling waits: fewer than min_size records" in blocks[1]
    shards = document["shards"]
    assert [shard["address"] for shard in shards] == [first.address, second.address]
    assert [shard["sessions"] for shard in shards] == [1, 0]  # the test's own client; status only asks
    assert shards[0]["size"] == 100 and shards[0]["per_second"]["inserted"] > 0
    assert shards[1]["blocked_on"] == "min_size" and shards[1]["capacity"] == 200


@pytest.mark.integration
def test_an_address_where_nobody_answers_is_one_line_and_code_1(capsys, free_address):
    with start_server(SPEC, 100) as server:
        assert main(["status", free_address, server.address]) == 1
        output, errors = capsys.readouterr()
        assert errors == (
            f"headrace: error: no replay shard answered at {free_address} within 3 s: nothing listens there\n"
        )
        assert f"shard 0 at {server.address}" in output
        assert main(["status", free_address, "--json"]) == 1
        [shard] = json.loads(capsys.readouterr().out)["shards"]
        assert (shard["address"], shard["state"]) == (free_address, "unreachable")


@pytest.mark.integration
def test_a_shard_with_a_token_wants_it(capsys, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o600)
    with start_server(SPEC, 100, token_file=str(token)) as server:
        assert main(["status", server.address]) == 1
        assert "no token was given" in capsys.readouterr().err
        assert main(["status", server.address, "--token-file", str(token)]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "needs a run directory or the address of a replay shard"),
        (["nowhere"], "nowhere: neither a run directory nor the HOST:PORT of a replay shard"),
        (["."], ".: no readable status.json; is it the directory of a run?"),
        (["127.0.0.1:1", "--tls-key", "k"], "certificate and key go together"),
        (["127.0.0.1:1", "--token-file", "no-such-file"], "token_file: cannot read no-such-file"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(capsys, arguments, says):
    assert main(["status", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("headrace: error: ") and says in line
