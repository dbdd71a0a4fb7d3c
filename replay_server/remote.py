"""A shard behind gRPC, as its client sees it."""

from __future__ import annotations

import contextlib
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import grpc

from replay_server import wire
from replay_server.arena import Arena
from replay_server.channels import CLIENT_OPTIONS
from replay_server.directory import ShardDirectory
from replay_server.documents import hello_from, stats_from
from replay_server.errors import ConfigError, HeadraceError, InvalidRecord, NotShared, Unavailable
from replay_server.frames import Layout
from replay_server.handshake import check_handshake
from replay_server.messages import (
    Call,
    Hello,
    InsertReply,
    InsertRequest,
    Reply,
    SampleReply,
    SampleRequest,
    SavedFile,
    UpdateReply,
    UpdateRequest,
    View,
)
from replay_server.placing import WORTH_PLACING, Placement, decode_placed_reply, encode_placed, is_placed
from replay_server.remote_call import CALL_S, RemoteCall, Sent, shares_no_longer
from replay_server.replay import ShardStats
from replay_server.security import ClientSecurity
from replay_server.sharing import Shared, Sharing

_FIRST_TRY_S = 1.0

_GREETING_S = 2.0

_SHARING_S = 2.0

_DETACH_S = 0.2

_OFFERS = 5


class RemoteShard:
    """Opens a connection of its own and asks what the shard is.

    Args:
        address: HOST:PORT.
        timeout_s: how long to try.
        security: token and TLS; None for neither.
        directory: where the shard is, also when it has moved; None: it keeps its address.
        transport: `auto` shares memory with a shard on the same host and speaks gRPC alone otherwise, `grpc` never
            shares, `shm` insists on it at the start (after a shard's restart, gRPC serves until memory is shared anew).

    Raises:
        Unavailable: nothing answered in time.
        NotShared: with `shm`, why memory cannot be shared.
        Unauthenticated: a wrong token, or one side does not trust the other.
    """

    synchronous = False

    def __init__(
        self,
        address: str,
        timeout_s: float,
        security: ClientSecurity | None = None,
        *,
        transport: str = "auto",
        directory: ShardDirectory | None = None,
    ) -> None:
        if transport not in ("auto", "grpc", "shm"):
            raise ConfigError(f"transport {transport!r} is unknown: use auto, grpc or shm")
        self._address = address
        self._security = security or ClientSecurity()
        self._directory = directory
        self._index: int | None = None  # of the shard, once it has greeted
        self._moving = threading.Lock()
        self._open(address)
        self._sharing = Sharing(self._offer) if transport != "grpc" else None
        deadline = time.monotonic() + timeout_s
        try:
            self.adopt(hello_from(self._greet(timeout_s)))
            if self._sharing is not None:
                self._await_sharing(deadline, required=transport == "shm")
        except HeadraceError:
            self.close()
            raise

    @property
    def transport(self) -> str:
        """How records travel now: `shm` or `grpc`."""
        return "grpc" if self._sharing is None or self._sharing.session is None else "shm"

    def insert(self, request: InsertRequest) -> Call[InsertReply]:
        return RemoteCall(partial(self._send_insert, request), self._address)

    def sample(self, request: SampleRequest) -> Call[SampleReply]:
        return RemoteCall(partial(self._send_sample, request), self._address)

    def update(self, request: UpdateRequest) -> Call[UpdateReply]:
        frame = wire.encode_update(request, self._layout)
        return self._call("Update", frame, partial(wire.decode_update_reply, layout=self._layout))

    def greet(self) -> Call[Hello]:
        """Ask who serves at the address now; ends within two seconds."""
        return self._call("Hello", wire.encode_json({}, reply=False), _hello, _GREETING_S)

    def adopt(self, hello: Hello) -> None:
        """Go on with the shard that greeted: the one known, or another life of it."""
        self.hello: Hello = hello
        self._index = hello.shard
        self._layout = Layout(hello.spec, hello.table)
        if self._sharing is not None and hello.shared_memory:
            self._sharing.begin()

    def stats(self) -> Call[ShardStats]:
        return self._call("Stats", wire.encode_json({}, reply=False), _stats)

    def clear(self) -> View:
        return View(**self._ask("Clear", {}, CALL_S))

    def save(self, directory: str) -> str:
        return str(self._ask("Save", {"directory": directory}, 600.0)["name"])

    def begin_save(self, directory: str) -> Call[str]:
        frame = wire.encode_json({"directory": directory}, reply=False)
        return self._call("BeginSave", frame, lambda reply: str(_document(reply)["name"]))

    def saved(self, directory: str) -> Call[SavedFile]:
        frame = wire.encode_json({"directory": directory}, reply=False)
        return self._call("Saved", frame, lambda reply: SavedFile(**_document(reply)))

    def read_saved(self, directory: str, offset: int) -> bytes:
        return b64decode(self._ask("ReadSaved", {"directory": directory, "offset": offset}, CALL_S)["base64"])

    def drop_saved(self, directory: str) -> None:
        self._ask("DropSaved", {"directory": directory}, CALL_S)

    def close(self) -> None:
        session = self._sharing.close() if self._sharing is not None else None
        if session is not None:
            with contextlib.suppress(HeadraceError):  # else the shard lets go when this process ends
                self._ask("Detach", {"session": session}, _DETACH_S)
        self._channel.close()

    def _await_sharing(self, deadline: float, *, required: bool) -> None:
        sharing = self._sharing
        assert sharing is not None
        if self.hello.shared_memory:
            sharing.wait(min(max(deadline - time.monotonic(), 0.0), _SHARING_S))
        if required and sharing.session is None:
            why = sharing.refusal or "it does not share memory, or did not answer in time"
            raise NotShared(f"transport shm with the shard at {self._address}: {why}; transport=auto goes on over gRPC")

    def _greet(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the shard to come up, but not for one that will never be trusted."""
        deadline = time.monotonic() + timeout_s
        try:
            return self._ask("Hello", {}, min(timeout_s, _FIRST_TRY_S), wait_for_ready=True)
        except Unavailable:
            what = check_handshake(self._address, self._security, _FIRST_TRY_S)
        try:
            return self._ask("Hello", {}, max(deadline - time.monotonic(), 0.05), wait_for_ready=True)
        except Unavailable:
            raise Unavailable(f"no replay shard answered at {self._address} within {timeout_s:g} s: {what}") from None

    def _ask(
        self, method: str, document: dict[str, Any], timeout_s: float, wait_for_ready: bool = False
    ) -> dict[str, Any]:
        frame = wire.encode_json(document, reply=False)
        deadline = time.monotonic() + timeout_s
        call: RemoteCall[dict[str, Any]] = RemoteCall(
            lambda remaining_s: Sent(self._start(method, frame, remaining_s, wait_for_ready), _document),
            self._address,
            timeout_s,
        )
        return call.result(deadline - time.monotonic() + 1.0)

    def _call(
        self, method: str, frame: bytes, decode: Callable[[bytes], Reply], timeout_s: float = CALL_S
    ) -> RemoteCall[Reply]:
        return RemoteCall(
            lambda remaining_s: Sent(self._start(method, frame, remaining_s), decode), self._address, timeout_s
        )

    def _send_insert(self, request: InsertRequest, timeout_s: float) -> Sent:
        frame = wire.insert_frame(request, self._layout)
        decode = partial(wire.decode_insert_reply, layout=self._layout)
        shared = self._lease(frame.length)
        if shared is None:
            return Sent(self._start("Insert", frame.to_bytes(), timeout_s), decode)
        frame.write(shared.region.memory)
        placement = Placement(shared.session, shared.region.offset, frame.length, 0, 0)
        return self._send_placed("Insert", encode_placed(placement, self._layout.table), timeout_s, shared, decode)

    def _send_sample(self, request: SampleRequest, timeout_s: float) -> Sent:
        frame = wire.encode_sample(request, self._layout)
        shared = self._lease(size := wire.reply_bytes(int(request.counts.sum()), self._layout.spec))
        if shared is None:
            decode = partial(wire.decode_sample_reply, layout=self._layout)
            return Sent(self._start("Sample", frame, timeout_s), decode)
        placement = Placement(shared.session, 0, 0, shared.region.offset, size)
        placed = encode_placed(placement, self._layout.table, frame)
        return self._send_placed("Sample", placed, timeout_s, shared, partial(self._placed_sample, shared))

    def _placed_sample(self, shared: Shared, frame: bytes) -> SampleReply:
        """The arrays are read-only views of shared memory, or of the message where the shard did not use that."""
        if not is_placed(frame):
            return wire.decode_sample_reply(frame, self._layout)
        length = decode_placed_reply(frame, self._layout.table)
        if length > len(shared.region.memory):
            raise InvalidRecord(f"a reply of {length} bytes in {len(shared.region.memory)} bytes of shared memory")
        reply = shared.region.memory[:length]
        reply.flags.writeable = False
        return wire.decode_sample_reply(reply.data, self._layout)

    def _lease(self, size: int) -> Shared | None:
        return self._sharing.lease(size) if self._sharing is not None and size >= WORTH_PLACING else None

    def _send_placed(
        self, method: str, frame: bytes, timeout_s: float, shared: Shared, decode: Callable[[bytes], Any]
    ) -> Sent:
        future = self._start(method, frame, timeout_s)
        future.add_done_callback(partial(self._ended, shared))  # holds the region until the call has ended
        return Sent(future, decode)

    def _ended(self, shared: Shared, future: Any) -> None:
        if self._sharing is not None and shares_no_longer(future):
            self._sharing.lost(shared.session)

    def _offer(self, arena: Arena, ticket: Mapping[str, Any], tries: int = _OFFERS) -> None:
        sharing = self._sharing
        assert sharing is not None
        try:
            frame = wire.encode_json(dict(ticket), reply=False)
            future = self._start("Attach", frame, CALL_S, wait_for_ready=True)
        except HeadraceError as error:
            sharing.answered(arena, error)
            return

        def answer(future: Any) -> None:
            try:
                sharing.answered(arena, int(_document(future.result(timeout=0.0))["session"]))
            except (grpc.RpcError, grpc.FutureCancelledError):
                if tries > 1 and future.code() is grpc.StatusCode.UNAVAILABLE:  # sent into a connection that was ending
                    self._offer(arena, ticket, tries - 1)
                    return
                sharing.answered(arena, NotShared(f"the shard at {self._address} refuses: {future.details()}"))
            except (HeadraceError, KeyError, TypeError, ValueError) as error:
                sharing.answered(arena, NotShared(f"the shard's answer is not understood: {error}"))

        future.add_done_callback(answer)

    def _open(self, address: str) -> None:
        self._address = address
        self._channel: Any = self._security.channel(address, CLIENT_OPTIONS)
        self._methods = {name: self._channel.unary_unary(f"/{wire.SERVICE}/{name}") for name in wire.METHODS}

    def _follow(self, directory: ShardDirectory) -> None:
        """Open another connection where the directory says that the shard has moved."""
        address = None if self._index is None else directory.address(self._index)
        if address is None or address == self._address:
            return
        with self._moving:
            self._channel.close()
            self._open(address)

    def _start(self, method: str, frame: bytes, timeout_s: float, wait_for_ready: bool = False) -> Any:
        if self._directory is not None:
            self._follow(self._directory)
        try:
            return self._methods[method].future(
                frame, timeout=timeout_s, wait_for_ready=wait_for_ready, metadata=self._security.metadata
            )
        except ValueError:  # grpc says so of a closed channel
            raise Unavailable(f"the connection to the shard at {self._address} was closed") from None


def _document(frame: bytes) -> dict[str, Any]:
    return wire.decode_json(frame, reply=True)


def _hello(frame: bytes) -> Hello:
    return hello_from(_document(frame))


def _stats(frame: bytes) -> ShardStats:
    return stats_from(_document(frame))
