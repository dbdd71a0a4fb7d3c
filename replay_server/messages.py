"""What clients and shards say to one another, independent of how it travels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE
from replay_server.replay import ShardStats
from replay_server.specs import RecordSpec

Reply = TypeVar("Reply")
Reply_co = TypeVar("Reply_co", covariant=True)


LONGEST_WAIT_S = 0.5
"""No call is held longer by a shard: a client that wants to wait longer asks again."""


class View(NamedTuple):
    """What a shard held when it replied: sum of p^alpha, records, records ever inserted, sample credits ever spent."""

    mass: float
    size: int
    inserted: int
    sampled: float


class Stamp(NamedTuple):
    """Names one chunk of one writer: sent again with the same stamp it is stored once.

    `opens` is set until the first acknowledgement of this epoch has arrived: only such a chunk may introduce a writer
    the shard does not know. Any other from an unknown writer is refused with WriterEvicted.
    """

    writer_id: int
    epoch: int
    sequence: int
    opens: bool = True


@dataclass(frozen=True)
class Hello:
    """What a shard is: fixed from its start to its end.

    `min_size` is its rate limiter's, `address` for people. `max_message_bytes` bounds a reply, `max_request_bytes` what
    is sent. `durability` is the level at which inserts are acknowledged. `consuming`: records are removed by being
    sampled (`max_times_sampled`), so nothing should be drawn ahead of need. `shared_memory`: a client on the same host
    may hand over memory of its own.
    """

    address: str
    shard: int
    incarnation: int
    capacity: int
    min_size: int
    max_message_bytes: int
    spec: RecordSpec
    durability: str = "checkpoint"
    consuming: bool = False
    table: str = "replay"
    max_request_bytes: int = 2**62
    shared_memory: bool = False


@dataclass(frozen=True)
class InsertRequest:
    """A chunk: records uint8[B, record_size], float64[B] priorities or None; waits at most `wait_s`.

    A request without a stamp may be stored twice when it is sent twice.
    """

    records: NDArray[np.uint8]
    priorities: NDArray[np.float64] | None
    stamp: Stamp | None
    wait_s: float


@dataclass(frozen=True)
class InsertReply:
    """`blocked_on` set: nothing was stored, send it again; `turned_away`: later each time, too many wait already."""

    accepted: int
    duplicates: int
    blocked_on: str | None
    view: View
    turned_away: bool = False


@dataclass(frozen=True)
class Updates:
    """New priorities: KEY_DTYPE[U] keys, float64[U] values."""

    keys: NDArray[Any] = field(default_factory=lambda: np.zeros(0, KEY_DTYPE))
    priorities: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.keys)


NO_UPDATES = Updates()


@dataclass(frozen=True)
class SampleRequest:
    """Updates to apply first, then rows to draw.

    Attributes:
        counts: int64[K], rows for each of K batches.
        credit: sample credits this request spends at the shard's rate limiter (`sharding`).
        updates: applied once, whether or not the sampling then has to wait.
        wait_s: how long the shard may let the sampling wait.
    """

    counts: NDArray[np.int64]
    credit: float
    updates: Updates
    wait_s: float


@dataclass(frozen=True)
class SampleReply:
    """Rows in the order of the request's counts. `blocked_on` set: none were drawn, ask again (without the updates).

    `probabilities` are p^alpha / `view.mass`, both at the moment of the draw.
    """

    records: NDArray[np.uint8]
    keys: NDArray[Any]
    probabilities: NDArray[np.float64]
    applied: int
    stale: int
    blocked_on: str | None
    view: View


@dataclass(frozen=True)
class UpdateRequest:
    """Updates alone, and sample credits given back for rows that will never be read."""

    updates: Updates
    returned: float = 0.0


@dataclass(frozen=True)
class UpdateReply:
    applied: int
    stale: int
    view: View


@dataclass(frozen=True)
class SavedFile:
    """A snapshot that was begun: where, on the shard's host; once it is done its size and the CRC32C it ends with."""

    path: str
    done: bool
    bytes: int = 0
    checksum: int = 0


class Call(Protocol[Reply_co]):
    """A request under way."""

    def done(self) -> bool: ...

    def result(self, timeout_s: float) -> Reply_co:
        """The reply.

        Raises:
            ReplayTimeout: no reply within `timeout_s`; ask again later.
            HeadraceError: what the shard refused, or Unavailable.
        """


class Finished(Generic[Reply]):
    """A call that ended inside the one that made it."""

    def __init__(self, run: Callable[[], Reply]) -> None:
        self._error: Exception | None = None
        try:
            self._reply = run()
        except Exception as error:
            self._error = error

    def done(self) -> bool:
        return True

    def result(self, timeout_s: float) -> Reply:
        if self._error is not None:
            raise self._error
        return self._reply


class ShardPort(Protocol):
    """One shard as its client sees it, in this process or another.

    `hello` says what the shard is. `synchronous`: a call has ended when it returns, and waiting happens inside it; such
    a shard lives as long as its client. Any other may end and come back under its address: calls then end with
    Unavailable, `greet` asks who is there now, and `adopt` makes the port go on with that one.
    """

    hello: Hello
    synchronous: bool

    @property
    def transport(self) -> str: ...

    def insert(self, request: InsertRequest) -> Call[InsertReply]: ...

    def sample(self, request: SampleRequest) -> Call[SampleReply]: ...

    def update(self, request: UpdateRequest) -> Call[UpdateReply]: ...

    def greet(self) -> Call[Hello]: ...

    def adopt(self, hello: Hello) -> None: ...

    def stats(self) -> Call[ShardStats]: ...

    def clear(self) -> View: ...

    def save(self, directory: str) -> str: ...

    def begin_save(self, directory: str) -> Call[str]:
        """A save that is answered as soon as its cut is made, and written afterwards."""

    def saved(self, directory: str) -> Call[SavedFile]:
        """What has become of it."""

    def read_saved(self, directory: str, offset: int) -> bytes:
        """A piece of it, once it is done; empty at its end."""

    def drop_saved(self, directory: str) -> None:
        """Remove it there."""

    def close(self) -> None: ...
