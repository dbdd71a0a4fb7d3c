"""A shard under clients that push and do not read, during a snapshot: it stays below what it printed at its start."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fault.proxy import TO_CLIENT, Proxy
from fault.records import SPEC, rows
from replay_server import connect
from replay_server.memory import INTERPRETER_BYTES
from replay_server.messages import InsertRequest, SampleRequest, Updates
from replay_server.remote import RemoteShard

pytestmark = pytest.mark.integration

_CHUNK = SPEC.pack(rows(0, (4 << 20) // SPEC.record_size))
_LARGE = (30 << 20) // SPEC.record_size
_READERS = 6
_UNREAD = 8


def test_memory_stays_below_the_budget(start_shard):
    """Replies of 2.6 GB that nobody reads, 16 requests of 4 MiB under way at any time, batches in shared memory."""
    shard = start_shard(capacity=1_000_000)
    budget = int(re.search(r" = ([\d,]+) MiB(?! \+)", shard.line)[1].replace(",", "")) << 20
    ended = threading.Event()

    def write():
        port = RemoteShard(shard.address, 20.0, transport="grpc")
        while not ended.is_set():
            calls = [port.insert(InsertRequest(_CHUNK, None, None, 0.5)) for _ in range(8)]
            for call in calls:
                call.result(30.0)
        port.close()

    writers = [threading.Thread(target=write) for _ in range(2)]
    with connect([shard.address], spec=SPEC, transport="shm") as near, Proxy(shard.address) as proxy:
        near.insert(rows(0, 10_000))
        readers = [RemoteShard(proxy.address, 20.0, transport="grpc") for _ in range(_READERS)]
        proxy.silence(TO_CLIENT)
        request = SampleRequest(np.array([_LARGE]), 0.0, Updates(), 0.5)
        unread = [reader.sample(request) for reader in readers for _ in range(_UNREAD)]
        for writer in writers:
            writer.start()
        try:
            saves, deadline = 0, time.monotonic() + 2.0
            while saves == 0 or time.monotonic() < deadline:
                near.save(".")
                saves += 1
                near.sample(2000)
            waits = near.stats().shards[0].waits
        finally:
            ended.set()
            for writer in writers:
                writer.join(60)
        assert not all(call.done() for call in unread)
        proxy.cut()
        for reader in readers:
            reader.close()
    assert "bytes" in waits
    assert _high_water(shard.pid) < budget + INTERPRETER_BYTES, (_high_water(shard.pid) >> 20, shard.line)


def _high_water(pid):
    """Bytes that a process has ever had in memory at once."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10
