"""A shard in this process, as its client sees it."""

from __future__ import annotations

from pathlib import Path

from replay_server.messages import (
    Call,
    Finished,
    Hello,
    InsertReply,
    InsertRequest,
    SampleReply,
    SampleRequest,
    SavedFile,
    UpdateReply,
    UpdateRequest,
    View,
)
from replay_server.replay import ShardStats
from replay_server.shard import Shard
from replay_server.snapshot_file import stated_checksum

_UNLIMITED = 2**62
_PIECE_BYTES = 4 << 20


def snapshot_name(shard: int) -> str:
    """File name of one shard's checkpoint inside a directory."""
    return f"replay-{shard}.h5"


def hello_of(shard: Shard) -> Hello:
    """What a shard in this process tells of itself."""
    table = shard.table
    return Hello(
        address=shard.address,
        shard=table.shard,
        incarnation=table.incarnation,
        capacity=table.capacity,
        min_size=shard.limiter.min_size,
        max_message_bytes=_UNLIMITED,
        spec=table.spec,
        durability=shard.durability,
        consuming=table.consuming,
    )


class LocalShard:
    """Every call ends inside the one that makes it: deterministic in one thread."""

    synchronous = True
    transport = "in-process"

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.hello = hello_of(shard)

    def insert(self, request: InsertRequest) -> Call[InsertReply]:
        return Finished(lambda: self._shard.insert(request))

    def sample(self, request: SampleRequest) -> Call[SampleReply]:
        return Finished(lambda: self._shard.sample(request))

    def update(self, request: UpdateRequest) -> Call[UpdateReply]:
        return Finished(lambda: self._shard.update(request))

    def greet(self) -> Call[Hello]:
        return Finished(lambda: self.hello)

    def adopt(self, hello: Hello) -> None:
        self.hello = hello

    def stats(self) -> Call[ShardStats]:
        return Finished(self._shard.stats)

    def clear(self) -> View:
        return self._shard.clear()

    def save(self, directory: str) -> str:
        name = snapshot_name(self.hello.shard)
        self._shard.save(str(Path(directory) / name))
        return name

    def begin_save(self, directory: str) -> Call[str]:
        """Written at once: there is nobody who could write it later."""
        return Finished(lambda: self.save(directory))

    def saved(self, directory: str) -> Call[SavedFile]:
        path = Path(directory) / snapshot_name(self.hello.shard)
        return Finished(lambda: SavedFile(str(path), True, path.stat().st_size, stated_checksum(path)))

    def read_saved(self, directory: str, offset: int) -> bytes:
        with (Path(directory) / snapshot_name(self.hello.shard)).open("rb") as file:
            file.seek(offset)
            return file.read(_PIECE_BYTES)

    def drop_saved(self, directory: str) -> None:
        (Path(directory) / snapshot_name(self.hello.shard)).unlink()

    def close(self) -> None:
        """The shard belongs to whoever made it."""
