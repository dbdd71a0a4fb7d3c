"""The gRPC face of one shard: bytes in, bytes out, typed errors as status and details."""

from __future__ import annotations

import dataclasses
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from replay_server import wire
from replay_server.arrivals import Arrivals
from replay_server.attachments import Attachments
from replay_server.call_meter import CallMeter
from replay_server.documents import hello_document
from replay_server.errors import (
    CheckpointError,
    ConfigError,
    Deadlocked,
    HeadraceError,
    InvalidRecord,
    JournalError,
    NotShared,
    SchemaMismatch,
    StaleEpoch,
    StorageFull,
    Unavailable,
    WriterEvicted,
)
from replay_server.frames import Layout
from replay_server.messages import Hello, SampleReply, SampleRequest
from replay_server.placing import decode_placed, encode_placed_reply, is_placed
from replay_server.replay import ShardStats
from replay_server.reply_budget import ReplyBudget
from replay_server.saves import Saves
from replay_server.shard import Shard
from replay_server.table import Drawn

_CODES: list[tuple[type[HeadraceError], Any]] = [
    (InvalidRecord, grpc.StatusCode.INVALID_ARGUMENT),
    (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (SchemaMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (CheckpointError, grpc.StatusCode.FAILED_PRECONDITION),
    (NotShared, grpc.StatusCode.FAILED_PRECONDITION),
    (StaleEpoch, grpc.StatusCode.ABORTED),
    (WriterEvicted, grpc.StatusCode.ABORTED),
    (StorageFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Deadlocked, grpc.StatusCode.FAILED_PRECONDITION),
    (JournalError, grpc.StatusCode.DATA_LOSS),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
]


_NOWHERE = np.zeros(0, np.uint8)


class _ReplyInPlace:
    """A sample reply made where it is to be: first its rows, then the header before them."""

    def __init__(self, memory: NDArray[np.uint8], layout: Layout) -> None:
        self._memory = memory
        self._layout = layout

    def rows(self, count: int) -> Drawn:
        return Drawn(*wire.sample_reply_rows(self._memory, count, self._layout))

    def finish(self, reply: SampleReply) -> bool:
        """False for a reply of no rows, which is made elsewhere."""
        if len(reply.keys) == 0:
            return False
        wire.finish_sample_reply(self._memory, reply, self._layout)
        return True


class ReplayService:
    """Handlers of `/headrace.Replay/*` over one shard.

    Args:
        shard: what is served.
        hello: what a client is told first.
        directory: where `Save` may write; None refuses it.
        attachments: the memory of clients on this host.
        replies: room for replies that go over gRPC.
        meter: counts the calls.
    """

    def __init__(
        self,
        shard: Shard,
        hello: Hello,
        directory: Path | None,
        attachments: Attachments,
        replies: ReplyBudget,
        meter: CallMeter,
    ) -> None:
        self._shard = shard
        self._layout = Layout(shard.table.spec, hello.table)
        self._hello = hello
        self._attachments = attachments
        self._replies = replies
        self._methods: dict[str, Callable[[bytes, Any], bytes]] = {
            "Hello": self._greet,
            "Insert": self._insert,
            "Sample": self._sample,
            "Update": self._update,
            "Stats": self._stats,
            "Clear": self._clear,
            "Save": self._save,
            "BeginSave": self._begin_save,
            "Saved": self._saved,
            "ReadSaved": self._read_saved,
            "DropSaved": self._drop_saved,
            "Attach": self._attach,
            "Detach": self._detach,
        }
        self._saves = Saves(shard, directory)
        self._started = time.monotonic()
        self._meter = meter

    def handlers(self, arrivals: Arrivals) -> Any:
        """A generic gRPC handler; requests and replies stay bytes."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE,
            {name: grpc.stream_unary_rpc_method_handler(self._typed(name, arrivals)) for name in self._methods},
        )

    def stats(self) -> ShardStats:
        """The shard's, with what this server counted."""
        stats, waits = self._shard.stats(), self._replies.waits()
        return dataclasses.replace(
            stats,
            blocked_on=stats.blocked_on or ("bytes" if self._replies.waiting else None),
            waits={**stats.waits, "bytes": waits} if waits.calls else stats.waits,
            uptime_s=time.monotonic() - self._started,
            calls=self._meter.calls(),
            refusals=self._meter.refusals(),
            sessions=len(self._attachments),
        )

    def join_saves(self) -> None:
        """Wait for a snapshot that the shard has been told to give up."""
        self._saves.join()

    def _greet(self, frame: bytes, _: Any) -> bytes:
        self._asked(frame)
        return self._told(hello_document(self._hello))

    def _insert(self, frame: bytes, _: Any) -> bytes:
        frame, _place = self._unwrapped(frame)
        request = wire.decode_insert(frame, self._layout)
        return wire.encode_insert_reply(self._shard.insert(request), self._layout)

    def _sample(self, frame: bytes, context: Any) -> bytes:
        frame, place = self._unwrapped(frame)
        request = wire.decode_sample(frame, self._layout)
        rows = int(request.counts.sum())
        if rows == 0:
            return self._plain(self._shard.sample(request))
        size = wire.reply_bytes(rows, self._layout.spec)
        if len(place) >= size:
            plain = self._sample_into(place[:size], request)
            return encode_placed_reply(size, self._layout.table) if plain is None else plain
        begin = time.monotonic()
        if not self._replies.take(size, request.wait_s):
            updated = self._shard.sample(SampleRequest(np.zeros(0, np.int64), 0.0, request.updates, 0.0))
            return self._plain(dataclasses.replace(updated, blocked_on="bytes"))
        if not context.add_callback(lambda: self._replies.give_back(size)):
            self._replies.give_back(size)
            raise Unavailable("the caller has gone")
        request = dataclasses.replace(request, wait_s=max(request.wait_s - (time.monotonic() - begin), 0.0))
        message = BytesIO(bytes(size))
        plain = self._sample_into(np.frombuffer(message.getbuffer(), np.uint8), request)
        # not a copy: a BytesIO hands out what it was made of, once no array looks at it any more
        return message.getvalue() if plain is None else plain

    def _sample_into(self, memory: NDArray[np.uint8], request: SampleRequest) -> bytes | None:
        """Make the reply in `memory`; or return it, when it has no rows. No array of it is left behind."""
        placed = _ReplyInPlace(memory, self._layout)
        reply = self._shard.sample(request, placed.rows)
        return None if placed.finish(reply) else self._plain(reply)

    def _plain(self, reply: SampleReply) -> bytes:
        return wire.encode_sample_reply(reply, self._layout)

    def _unwrapped(self, frame: bytes) -> tuple[bytes, NDArray[np.uint8]]:
        """A request, copied out of shared memory if it lies there, and where its reply may go: nowhere with 0 bytes."""
        if not is_placed(frame):
            return frame, _NOWHERE
        placement, request = decode_placed(frame, self._layout.table)
        part = self._attachments.part
        if placement.request_length > self._hello.max_request_bytes:
            raise InvalidRecord(f"a request of {placement.request_length} bytes, see max_request_bytes")
        if placement.request_length:  # a copy: what is checked must be what is stored, whatever the client writes
            request = part(placement.session, placement.request_offset, placement.request_length).tobytes()
        return request, part(placement.session, placement.reply_offset, placement.reply_capacity)

    def _update(self, frame: bytes, _: Any) -> bytes:
        request = wire.decode_update(frame, self._layout)
        return wire.encode_update_reply(self._shard.update(request), self._layout)

    def _stats(self, frame: bytes, _: Any) -> bytes:
        self._asked(frame)
        return self._told(dataclasses.asdict(self.stats()))

    def _clear(self, frame: bytes, _: Any) -> bytes:
        self._asked(frame)
        return self._told(self._shard.clear()._asdict())

    def _attach(self, frame: bytes, _: Any) -> bytes:
        ticket = self._asked(frame)
        if isinstance(replaced := ticket.get("replaces"), int):
            self._attachments.detach(replaced)
        return self._told({"session": self._attachments.attach(ticket)})

    def _detach(self, frame: bytes, _: Any) -> bytes:
        session = self._asked(frame).get("session")
        if not isinstance(session, int):
            raise InvalidRecord("a session is a whole number")
        self._attachments.detach(session)
        return self._told({})

    def _asked(self, frame: bytes) -> dict[str, Any]:
        return wire.decode_json(frame, reply=False, table=self._layout.table)

    def _told(self, document: dict[str, Any]) -> bytes:
        return wire.encode_json(document, reply=True, table=self._layout.table)

    def _save(self, frame: bytes, _: Any) -> bytes:
        return self._told({"name": self._saves.save(self._asked(frame).get("directory"))})

    def _begin_save(self, frame: bytes, _: Any) -> bytes:
        return self._told({"name": self._saves.begin(self._asked(frame).get("directory"))})

    def _saved(self, frame: bytes, _: Any) -> bytes:
        return self._told(dataclasses.asdict(self._saves.outcome(self._asked(frame).get("directory"))))

    def _read_saved(self, frame: bytes, _: Any) -> bytes:
        asked = self._asked(frame)
        piece = self._saves.read(asked.get("directory"), asked.get("offset"))
        return self._told({"base64": b64encode(piece).decode()})

    def _drop_saved(self, frame: bytes, _: Any) -> bytes:
        self._saves.drop(self._asked(frame).get("directory"))
        return self._told({})

    def _typed(self, name: str, arrivals: Arrivals) -> Callable[[Iterator[bytes], Any], bytes]:
        """A method with its errors as status and details, counted."""
        method, meter = self._methods[name], self._meter

        def handle(messages: Iterator[bytes], context: Any) -> bytes:
            try:
                frame = arrivals.first(messages, context)
                begin = time.perf_counter()
                reply = method(frame, context)
            except HeadraceError as error:
                meter.refused(type(error).__name__)
                code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
                context.abort(code, wire.encode_error(error))
                raise
            meter.answered(name, time.perf_counter() - begin, len(frame), len(reply))
            return reply

        return handle
