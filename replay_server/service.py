"""The gRPC face of one shard: bytes in, bytes out, typed errors as status and details."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from replay_server import wire
from replay_server.errors import (
    CheckpointError,
    ConfigError,
    HeadraceError,
    InvalidRecord,
    SchemaMismatch,
    StaleEpoch,
    Unavailable,
)
from replay_server.local import snapshot_name
from replay_server.messages import Hello
from replay_server.shard import Shard

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
        self._spec = shard.table.spec
        self._hello = hello
        self._directory = directory

    def handlers(self) -> Any:
        """A generic gRPC handler; requests and replies stay bytes."""
        methods = {
            "Hello": self._greet,
            "Insert": self._insert,
            "Sample": self._sample,
            "Update": self._update,
            "Stats": self._stats,
            "Clear": self._clear,
            "Save": self._save,
        }
        return grpc.method_handlers_generic_handler(
            wire.SERVICE,
            {name: grpc.unary_unary_rpc_method_handler(_typed(method)) for name, method in methods.items()},
        )

    def _greet(self, frame: bytes) -> bytes:
        wire.decode_json(frame, reply=False)
        return wire.encode_json(wire.hello_document(self._hello), reply=True)

    def _insert(self, frame: bytes) -> bytes:
        return wire.encode_insert_reply(self._shard.insert(wire.decode_insert(frame, self._spec)))

    def _sample(self, frame: bytes) -> bytes:
        return wire.encode_sample_reply(self._shard.sample(wire.decode_sample(frame, self._spec)))

    def _update(self, frame: bytes) -> bytes:
        return wire.encode_update_reply(self._shard.update(wire.decode_update(frame, self._spec)))

    def _stats(self, frame: bytes) -> bytes:
        wire.decode_json(frame, reply=False)
        return wire.encode_json(dataclasses.asdict(self._shard.stats()), reply=True)

    def _clear(self, frame: bytes) -> bytes:
        wire.decode_json(frame, reply=False)
        return wire.encode_json(self._shard.clear()._asdict(), reply=True)

    def _save(self, frame: bytes) -> bytes:
        requested = wire.decode_json(frame, reply=False).get("directory")
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
        return wire.encode_json({"name": name}, reply=True)


def _typed(method: Callable[[bytes], bytes]) -> Callable[[bytes, Any], bytes]:
    def handle(frame: bytes, context: Any) -> bytes:
        try:
            return method(frame)
        except HeadraceError as error:
            code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
            context.abort(code, wire.encode_error(error))
            raise

    return handle
