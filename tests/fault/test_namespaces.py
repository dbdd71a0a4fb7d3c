"""Two hosts: partitions, loss and a thin line, made by the kernel. Skipped, with the reason, where it may not."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from fault.history import check_history, read_history
from fault.namespaces import PORT, two_hosts
from fault.processes import ENVIRONMENT
from fault.records import ids_in

pytestmark = pytest.mark.integration

_LATE_S = 2.5  # on a busy machine; less than the shortest trouble lasts
"""So much later than its deadline a call may end on a machine with other things to do."""


@pytest.fixture
def cable():
    with two_hosts() as connected:
        yield connected


@pytest.fixture
def play(cable, start_shard, start_writer, start_client, soak, figures):
    """`play(trouble, heal, seconds)`: a writer and a reader across the cable, before, during and after the trouble."""

    def run(trouble, heal, seconds):
        unprotected = {"address": cable.address, "prefix": cable.shard_side, "flags": ("--insecure",)}
        shard = start_shard(capacity=2_000_000, **unprotected)
        writer = start_writer([cable.address], 1, prefix=cable.client_side, pause_s=0.002)
        writer.wait_for_lines(10)
        reader = start_client("reader_process", [cable.address], prefix=cable.client_side)
        reader.wait_for_lines(3)
        before = len(reader.lines)
        trouble()
        time.sleep(seconds)
        during = len(reader.lines)
        heal()
        deadline = time.monotonic() + 25
        while not any(line["op"] == "sample" for line in reader.lines[during + 1 :]):
            assert time.monotonic() < deadline, "sampling does not go on"
            time.sleep(0.05)
        writer.more_lines(12)
        for client in (writer, reader):
            client.finish()
        save = f"from replay_server import connect; connect([{cable.address!r}]).save('.')"
        subprocess.run([*cable.client_side, sys.executable, "-c", save], env=ENVIRONMENT, check=True, timeout=60)
        calls = read_history(writer.history)
        verdict = check_history(calls, ids_in(shard.directory / "replay-0.h5"))
        figures.add(acknowledged=verdict.acknowledged, uncertain=verdict.uncertain, surfaced=verdict.surfaced)
        assert verdict.valid, verdict
        assert verdict.acknowledged
        longest = max(line["took"] for line in reader.lines)
        figures.note(longest_sample_s=longest)
        assert longest < 1.0 + _LATE_S, "a sample outstayed its deadline of 1 s"
        return verdict, reader.lines[before:during]

    return run


PARTITIONS = {
    "full": [f"input tcp dport {PORT} drop", f"output tcp sport {PORT} drop"],
    "to the shard": [f"input tcp dport {PORT} drop"],
    "from the shard": [f"output tcp sport {PORT} drop"],
}


@pytest.mark.parametrize("kind", PARTITIONS)
def test_a_partition_heals(kind, cable, play, soak):
    """Calls end at their deadlines; acknowledged records are there, and a lost acknowledgement repeats nothing."""
    _, during = play(lambda: cable.rules(*PARTITIONS[kind]), cable.rules, soak.count(4, 20))
    assert any(line["op"] == "failed" for line in during)


def test_random_loss_costs_time_only(cable, play, soak):
    """One packet in twenty, both ways."""
    lost = "numgen random mod 100 < 5 drop"
    verdict, _ = play(
        lambda: cable.rules(f"input tcp dport {PORT} {lost}", f"output tcp sport {PORT} {lost}"),
        cable.rules,
        soak.count(3, 20),
    )
    assert verdict.acknowledged > verdict.uncertain


def test_a_thin_line_holds_writers_back(cable, play, soak):
    play(lambda: cable.throttle("2mbit"), lambda: cable.throttle(None), soak.count(3, 20))
