"""A writer whose shard came back without the memory of it goes on, and says what it had to give up."""

import numpy as np

from replay_server import connect, start_server
from replay_server.reopening import ReopeningWriter
from replay_server.server import ReplayServer
from replay_server.specs import Field, RecordSpec

SPEC = RecordSpec((Field("action", "int64"),))


def rows(*actions: int) -> dict[str, np.ndarray]:
    return {"action": np.array(actions, np.int64)}


def serve(address: str = "127.0.0.1:0") -> ReplayServer:
    return start_server(SPEC, 100, address)


def test_a_shard_that_came_back_empty_takes_what_comes_next() -> None:
    first = serve()
    with connect([first.address], prefetch=0, transport="grpc") as replay:
        writer = ReopeningWriter(replay, writer_id=7, epoch=2, max_in_flight=1, gather_rows=1)
        writer.append(rows(1, 2, 3))
        assert (writer.flush().accepted, writer.acknowledged, writer.given_up) == (3, 0, 0)
        first.stop()
        second = serve(first.address)
        try:
            for action in range(10):
                writer.append(rows(action), timeout_s=20.0)
            ack = writer.flush(timeout_s=20.0)
            stored = replay.stats().size
            assert ack.unknown == 0 and writer.given_up == 10 - stored > 0
            assert ack.accepted == stored
            late = ReopeningWriter(replay, writer_id=7, epoch=3, max_in_flight=1, gather_rows=1)
            late.append(rows(99))
            assert late.flush().accepted == 1  # its owner's next epoch fences every one this writer opened
        finally:
            second.stop()
