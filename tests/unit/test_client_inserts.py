"""One-shot inserts after one that was refused."""

import numpy as np
import pytest

from replay_server import Field, InvalidRecord, RecordSpec, connect, in_process, start_server
from replay_server.shard import Shard
from replay_server.table import Table

SPEC = RecordSpec((Field("x", "float32"),))


@pytest.fixture(params=["local", "grpc"])
def replay(request):
    if request.param == "local":  # its chunks are as long as the table
        yield in_process([Shard(Table(SPEC, 4096))])
        return
    server = start_server(SPEC, 100_000)
    with connect([server.address], prefetch=0) as opened:
        yield opened
    server.stop(0.1)


@pytest.mark.parametrize("bad", [[0], [0, 4096], [4096], [8192]])
def test_an_insert_after_a_refused_one_answers_for_itself_alone(replay, bad):
    values = np.zeros(12_288, np.float32)
    values[bad] = np.nan
    with pytest.raises(InvalidRecord, match="not finite"):
        replay.insert({"x": values})
    for _ in range(3):
        ack = replay.insert({"x": np.ones(5, np.float32)})
        assert (ack.accepted, ack.duplicates, ack.unknown) == (5, 0, 0)
