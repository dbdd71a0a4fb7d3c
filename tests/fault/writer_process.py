"""A program that inserts records of its own until SIGTERM, and notes what it was told."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from fault.history import HistoryFile
from fault.noting_writer import NotingWriter
from fault.records import SPEC
from replay_server import StaleEpoch, connect


class Settings(msgspec.Struct, frozen=True):
    """What a writer does.

    Attributes:
        history: file of its calls.
        addresses: the shards; the writer goes to `shard`, or to the one its id hashes to.
        writer_id, epoch: it writes records from writer_id * 2^40 + epoch * 2^32.
        seed: of the sizes of its appends.
        most_rows: in one append.
        pause_s: between two appends.
        append_s, flush_s: deadlines.
    """

    history: str
    addresses: list[str]
    writer_id: int
    epoch: int = 0
    seed: int = 0
    shard: int | None = None
    most_rows: int = 64
    pause_s: float = 0.0
    append_s: float = 2.0
    flush_s: float = 2.0


def main(text: str) -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    settings = msgspec.json.decode(text, type=Settings)
    history = HistoryFile(Path(settings.history))
    rng = np.random.default_rng(settings.seed)
    with connect(settings.addresses, spec=SPEC, prefetch=0) as replay:
        stream = replay.writer(writer_id=settings.writer_id, epoch=settings.epoch, shard=settings.shard)
        first = (settings.writer_id << 40) + (settings.epoch << 32)
        writer = NotingWriter(stream, history, first, settings.append_s, settings.flush_s)
        try:
            while not ended:
                for _ in range(int(rng.integers(1, 9))):
                    writer.append(int(rng.integers(1, settings.most_rows + 1)))
                    if settings.pause_s:
                        time.sleep(settings.pause_s)
                writer.flush()
            writer.flush()
        except StaleEpoch as error:
            history.note(f"StaleEpoch: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
