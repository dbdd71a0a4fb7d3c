"""`headrace serve-replay` with a journal: killed and started again, damaged, twice in one directory."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest

from replay_server import ConfigError, Field, RecordSpec, connect, start_server

pytestmark = pytest.mark.integration
CONFIG = """\
address: 127.0.0.1:0
spec: {fields: [{name: x, dtype: float32}]}
capacity: 1000
durability: LEVEL
directory: kept
"""


class Program:
    """Starts `headrace serve-replay` over one directory again and again."""

    def __init__(self, headrace, directory, level):
        self._headrace = headrace
        (directory / "shard.yaml").write_text(CONFIG.replace("LEVEL", level))

    def start(self, *flags):
        """Its address and the line it printed."""
        self.command = self._headrace("serve-replay", "shard.yaml", *flags)
        line = self.command.process.stdout.readline()
        assert line, self.command.finish(10.0)
        return re.search(r"127\.0\.0\.1:\d+", line)[0], line

    def refused(self, *flags):
        """Its exit code and what it says when it does not start."""
        code, output, errors = self._headrace("serve-replay", "shard.yaml", *flags).finish(60.0)
        assert output == "" and len(errors.splitlines()) == 1
        return code, errors

    def end(self, number):
        self.command.process.send_signal(number)
        self.command.finish(20.0)


@pytest.mark.parametrize("level", ["journal", "fsync"])
def test_what_was_acknowledged_is_there_after_sigkill(headrace, tmp_path, level):
    program = Program(headrace, tmp_path, level)
    address, line = program.start()
    assert "recovered 0 records from kept in" in line and "journal" in line
    with connect([address], prefetch=0) as replay:
        ack = replay.insert({"x": np.arange(300, dtype=np.float32)})
        assert (ack.accepted, ack.level) == (300, level)
        assert replay.stats().shards[0].level == level
        keys = replay.sample(5).keys
        program.end(signal.SIGKILL)
    address, line = program.start()
    assert re.search(r"; recovered 300 records from kept in \d+\.\d s$", line.strip())
    with connect([address], prefetch=0) as replay:
        assert (replay.stats().size, replay.stats().inserted) == (300, 300)
        replay.update_priorities(keys, np.ones(5))
        assert replay.flush().stale == 5  # keys of the life before
        assert replay.insert({"x": np.arange(5, dtype=np.float32)}).accepted == 5
    program.end(signal.SIGTERM)
    assert "recovered 305 records" in program.start()[1]


def test_damage_is_refused_by_name_and_left_out_on_demand(headrace, tmp_path):
    program = Program(headrace, tmp_path, "journal")
    address, _ = program.start()
    with connect([address], prefetch=0) as replay:
        for start in (0, 100, 200):
            replay.insert({"x": start + np.arange(100, dtype=np.float32)})
    program.end(signal.SIGKILL)
    [segment] = (tmp_path / "kept" / "journal").glob("*.log")
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 0x40
    segment.write_bytes(damaged)
    code, errors = program.refused()
    assert code == 2 and segment.name in errors and "--salvage" in errors
    address, line = program.start("--salvage")
    assert "damaged bytes" in line and segment.name in line
    with connect([address], prefetch=0) as replay:
        assert 0 < replay.stats().size < 300
    program.end(signal.SIGTERM)
    assert "damaged" not in program.start()[1]


def test_one_directory_belongs_to_one_program_at_a_time(headrace, tmp_path):
    program = Program(headrace, tmp_path, "journal")
    program.start()
    code, errors = program.refused()
    assert code == 2 and "kept" in errors


def test_a_server_that_is_stopped_twice_lets_go_of_its_directory_once(tmp_path):
    spec = RecordSpec((Field("x", "float32"),))
    for size in (0, 5, 10):
        with start_server(spec, 100, durability="journal", directory=str(tmp_path)) as server:
            assert server.shard.stats().size == size
            with connect([server.address], prefetch=0) as replay:
                replay.insert({"x": np.arange(5, dtype=np.float32)})
            server.stop()
            descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]  # would be closed by mistake
        for descriptor in descriptors:
            os.close(descriptor)


def test_a_journal_is_let_go_when_the_server_cannot_start(tmp_path):
    spec = RecordSpec((Field("x", "float32"),))
    settings = {"durability": "journal", "directory": str(tmp_path)}
    with start_server(spec, 100) as other:
        with pytest.raises(ConfigError, match="cannot listen"):
            start_server(spec, 100, other.address, **settings)
        with pytest.raises(ConfigError, match="metrics_port"):
            start_server(spec, 100, metrics_port=int(other.address.rpartition(":")[2]), **settings)
    start_server(spec, 100, **settings).stop()


def test_a_directory_with_a_journal_is_not_served_without_it(tmp_path):
    spec = RecordSpec((Field("x", "float32"),))
    start_server(spec, 100, durability="journal", directory=str(tmp_path)).stop()
    durable = start_server(spec, 100, durability="journal", directory=str(tmp_path))
    with durable, connect([durable.address], prefetch=0) as replay:
        replay.insert({"x": np.arange(5, dtype=np.float32)})
    with pytest.raises(ConfigError, match="holds the journal of a durable shard"):
        start_server(spec, 100, directory=str(tmp_path))
