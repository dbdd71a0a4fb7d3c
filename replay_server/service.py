"""The gRPC face of one shard: bytes in, bytes out, typed errors as status and details."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from replay_server import wire
from replay_server.call_meter import CallMeter
from replay_server.documents import hello_document
from replay_server.errors import (
    CheckpointError,
    ConfigError,
    HeadraceError,
    InvalidRecord,
    SchemaMismatch,
    StaleEpoch,
    Unavailable,
)
from replay_server.frames import Layout
from replay_server.local import snapshot_name
from replay_server.messages import Hello
from replay_server.replay import ShardStats
from replay_server.shard import Shard
from replay_server.table import Drawn

_CODES: list[tuple[type[HeadraceError], Any]] = [
    (InvalidRecord, grpc.StatusCode.INVALID_ARGUMENT),
    (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
    (SchemaMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (CheckpointError, grpc.StatusCode.FAILED_PRECONDITION),
    (StaleEpoch, grpc.StatusCode.ABORTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
]


class ReplayService:
    """Handlers of `/headrace.Replay/*` over one shard.

    Args:
        shard: what is served.
        hello: what a client is told first.
        directory: where `Save` may write; None refuses it.
    """

    def __init__(self, shard: Shard, hello: Hello, directory: Path | None) -> None:
        self._shard = shard
        self._layout = Layout(shard.table.spec, hello.table)
        self._hello = hello
        self._directory = directory
        self._methods: dict[str, Callable[[bytes], bytes]] = {
            "Hello": self._greet,
            "Insert": self._insert,
            "Sample": self._sample,
            "Update": self._update,
            "Stats": self._stats,
            "Clear": self._clear,
            "Save": self._save,
        }
        self._started = time.monotonic()
        self._meter = CallMeter(tuple(self._methods))

    def handlers(self) -> Any:
        """A generic gRPC handler; requests and replies stay bytes."""
        return grpc.method_handlers_generic_handler(
            wire.SERVICE,
            {name: grpc.unary_unary_rpc_method_handler(self._typed(name)) for name in self._methods},
        )

    def stats(self) -> ShardStats:
        """The shard's, with what this server counted."""
        return dataclasses.replace(
            self._shard.stats(),
            uptime_s=time.monotonic() - self._started,
            calls=self._meter.calls(),
            refusals=self._meter.refusals(),
        )

    def _greet(self, frame: bytes) -> bytes:
        self._asked(frame)
        return self._told(hello_document(self._hello))

    def _insert(self, frame: bytes) -> bytes:
        request = wire.decode_insert(frame, self._layout)
        return wire.encode_insert_reply(self._shard.insert(request), self._layout)

    def _sample(self, frame: bytes) -> bytes:
        request = wire.decode_sample(frame, self._layout)
        rows = int(request.counts.sum())
        message = BytesIO(bytes(wire.reply_bytes(rows, self._layout.spec)))
        memory = np.frombuffer(message.getbuffer(), np.uint8)

        def into(rows: int) -> Drawn:
            return Drawn(*wire.sample_reply_rows(memory, rows, self._layout))

        reply = self._shard.sample(request, into)
        if reply.blocked_on is not None:
            return wire.encode_sample_reply(reply, self._layout)
        wire.finish_sample_reply(memory, reply, self._layout)
        return message.getvalue()  # not a copy: a BytesIO hands out what it was made of

    def _update(self, frame: bytes) -> bytes:
        request = wire.decode_update(frame, self._layout)
        return wire.encode_update_reply(self._shard.update(request), self._layout)

    def _stats(self, frame: bytes) -> bytes:
        self._asked(frame)
        return self._told(dataclasses.asdict(self.stats()))

    def _clear(self, frame: bytes) -> bytes:
        self._asked(frame)
        return self._told(self._shard.clear()._asdict())

    def _asked(self, frame: bytes) -> dict[str, Any]:
        return wire.decode_json(frame, reply=False, table=self._layout.table)

    def _told(self, document: dict[str, Any]) -> bytes:
        return wire.encode_json(document, reply=True, table=self._layout.table)

    def _save(self, frame: bytes) -> bytes:
        requested = self._asked(frame).get("directory")
        if not isinstance(requested, str):
            raise InvalidRecord("a save names its directory as text")
        if self._directory is None:
            raise CheckpointError(f"shard {self._hello.shard} was started without a directory and cannot save")
        root = self._directory.resolve()
        target = (root / requested).resolve()
        if not target.is_relative_to(root):
            raise CheckpointError(f"{requested!r} is outside the directory this shard may write to, {root}")
        name = snapshot_name(self._hello.shard)
        self._shard.save(str(target / name))
        return self._told({"name": name})

    def _typed(self, name: str) -> Callable[[bytes, Any], bytes]:
        """A method with its errors as status and details, counted."""
        method, meter = self._methods[name], self._meter

        def handle(frame: bytes, context: Any) -> bytes:
            begin = time.perf_counter()
            try:
                reply = method(frame)
            except HeadraceError as error:
                meter.refused(type(error).__name__)
                code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
                context.abort(code, wire.encode_error(error))
                raise
            meter.answered(name, time.perf_counter() - begin, len(frame), len(reply))
            return reply

        return handle
