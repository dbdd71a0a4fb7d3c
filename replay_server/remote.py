"""A shard behind gRPC, as its client sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic

import grpc

from replay_server import wire
from replay_server.channels import CLIENT_OPTIONS
from replay_server.documents import hello_from, stats_from
from replay_server.errors import (
    HeadraceError,
    InvalidRecord,
    ReplayError,
    ReplayTimeout,
    Unauthenticated,
    Unavailable,
)
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
    UpdateReply,
    UpdateRequest,
    View,
)
from replay_server.replay import ShardStats
from replay_server.security import ClientSecurity

_CALL_S = 60.0
"""No call outlives this; a peer that vanished is noticed earlier, by keepalive."""

_FIRST_TRY_S = 1.0

_GREETING_S = 2.0

_GONE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class _RemoteCall(Generic[Reply]):
    def __init__(self, future: Any, decode: Callable[[bytes], Reply], address: str) -> None:
        self._future = future
        self._decode = decode
        self._address = address

    def done(self) -> bool:
        return bool(self._future.done())

    def result(self, timeout_s: float) -> Reply:
        try:
            return self._decode(self._future.result(timeout=max(timeout_s, 0.0)))
        except grpc.FutureTimeoutError:
            raise ReplayTimeout(f"the shard at {self._address} has not answered yet", "reply") from None
        except grpc.FutureCancelledError:
            raise Unavailable(f"the connection to the shard at {self._address} was closed") from None
        except grpc.RpcError as error:
            raise _translated(error, self._address) from None


class RemoteShard:
    """Opens a connection of its own and asks what the shard is.

    Args:
        address: HOST:PORT.
        timeout_s: how long to try.
        security: token and TLS; None for neither.

    Raises:
        Unavailable: nothing answered in time.
        Unauthenticated: a wrong token, or one side does not trust the other.
    """

    synchronous = False

    transport = "grpc"

    def __init__(self, address: str, timeout_s: float, security: ClientSecurity | None = None) -> None:
        self._address = address
        self._security = security or ClientSecurity()
        self._channel: Any = self._security.channel(address, CLIENT_OPTIONS)
        self._methods = {
            name: self._channel.unary_unary(f"/{wire.SERVICE}/{name}")
            for name in ("Hello", "Insert", "Sample", "Update", "Stats", "Clear", "Save")
        }
        try:
            self.adopt(hello_from(self._greet(timeout_s)))
        except HeadraceError:
            self.close()
            raise

    def insert(self, request: InsertRequest) -> Call[InsertReply]:
        frame = wire.encode_insert(request, self._layout)
        future = self._start("Insert", frame, _CALL_S)
        return _RemoteCall(future, partial(wire.decode_insert_reply, layout=self._layout), self._address)

    def sample(self, request: SampleRequest) -> Call[SampleReply]:
        frame = wire.encode_sample(request, self._layout)
        future = self._start("Sample", frame, _CALL_S)
        return _RemoteCall(future, partial(wire.decode_sample_reply, layout=self._layout), self._address)

    def update(self, request: UpdateRequest) -> Call[UpdateReply]:
        frame = wire.encode_update(request, self._layout)
        future = self._start("Update", frame, _CALL_S)
        return _RemoteCall(future, partial(wire.decode_update_reply, layout=self._layout), self._address)

    def greet(self) -> Call[Hello]:
        """Ask who serves at the address now; ends within two seconds."""
        future = self._start("Hello", wire.encode_json({}, reply=False), _GREETING_S)
        return _RemoteCall(future, lambda reply: hello_from(wire.decode_json(reply, reply=True)), self._address)

    def adopt(self, hello: Hello) -> None:
        """Go on with the shard that greeted: the one known, or another life of it."""
        self.hello: Hello = hello
        self._layout = Layout(hello.spec, hello.table)

    def stats(self) -> Call[ShardStats]:
        future = self._start("Stats", wire.encode_json({}, reply=False), _CALL_S)
        return _RemoteCall(future, lambda reply: stats_from(wire.decode_json(reply, reply=True)), self._address)

    def clear(self) -> View:
        return View(**self._ask("Clear", {}, _CALL_S))

    def save(self, directory: str) -> str:
        return str(self._ask("Save", {"directory": directory}, 600.0)["name"])

    def close(self) -> None:
        self._channel.close()

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
        future = self._start(method, frame, timeout_s, wait_for_ready)
        call: _RemoteCall[dict[str, Any]] = _RemoteCall(
            future, lambda reply: wire.decode_json(reply, reply=True), self._address
        )
        return call.result(deadline - time.monotonic() + 1.0)

    def _start(self, method: str, frame: bytes, timeout_s: float, wait_for_ready: bool = False) -> Any:
        try:
            return self._methods[method].future(
                frame, timeout=timeout_s, wait_for_ready=wait_for_ready, metadata=self._security.metadata
            )
        except ValueError:  # grpc says so of a closed channel
            raise Unavailable(f"the connection to the shard at {self._address} was closed") from None


def _translated(error: Any, address: str) -> HeadraceError:
    """The typed error the shard raised, or what the transport's status means."""
    details = str(error.details())
    known = wire.decode_error(details)
    if known is not None:
        return known
    text = f"shard at {address}: {details}"
    if error.code() is grpc.StatusCode.UNAUTHENTICATED or "andshake" in details or "CERTIFICATE" in details:
        return Unauthenticated(text)
    if error.code() in _GONE:
        return Unavailable(text)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return InvalidRecord(f"{text}; a message holds {wire.MAX_REPLY_BYTES} bytes")
    return ReplayError(text)
