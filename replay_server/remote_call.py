"""One call over gRPC: sent again while the shard is too busy to take it, its errors translated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

import grpc

from replay_server import wire
from replay_server.errors import (
    HeadraceError,
    InvalidRecord,
    NotShared,
    ReplayError,
    ReplayTimeout,
    Unauthenticated,
    Unavailable,
)
from replay_server.handshake import untrusted
from replay_server.messages import Reply

CALL_S = 60.0
"""No call outlives this; a peer that vanished is noticed earlier, by keepalive."""

_BUSY = "Concurrent RPC limit exceeded"
_BUSY_PAUSE_S = 0.05
_FORGOTTEN_PAUSE_S = 0.002
_GONE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class Sent(NamedTuple):
    """A gRPC future and what to make of its reply."""

    future: Any
    decode: Callable[[bytes], Any]


class RemoteCall(Generic[Reply]):
    """A call under way.

    Args:
        send: sends it, with so many seconds left; called again after the shard was busy or did not know the memory
            that the call named.
        address: for messages.
        timeout_s: seconds until the call ends by itself.
    """

    def __init__(self, send: Callable[[float], Sent], address: str, timeout_s: float = CALL_S) -> None:
        self._send = send
        self._address = address
        self._deadline = time.monotonic() + timeout_s
        self._pause_until: float | None = None
        self._failure: HeadraceError | None = None
        self._future, self._decode = send(timeout_s)

    def done(self) -> bool:
        """Whether there is a reply or an error; sends again what has to be."""
        if self._failure is not None:
            return True
        if self._pause_until is None:
            if not self._future.done():
                return False
            pause_s = self._pause_s()
            if pause_s is None:
                return True
            self._pause_until = time.monotonic() + pause_s
        if time.monotonic() >= self._pause_until:
            self._pause_until = None
            try:
                self._future, self._decode = self._send(max(self._deadline - time.monotonic(), 0.0))
            except HeadraceError as error:
                self._failure = error
                return True
        return False

    def result(self, timeout_s: float) -> Reply:
        deadline = time.monotonic() + max(timeout_s, 0.0)
        while not self.done():
            remaining = deadline - time.monotonic()
            if self._pause_until is not None:
                time.sleep(min(max(remaining, 0.0), max(self._pause_until - time.monotonic(), 0.0)))
            else:
                self._await(remaining)
            if remaining <= 0.0 and not self.done():
                raise ReplayTimeout(f"the shard at {self._address} has not answered yet", "reply")
        if self._failure is not None:
            raise self._failure
        try:
            reply: Reply = self._decode(self._future.result(timeout=0.0))
            return reply
        except grpc.FutureCancelledError:
            raise Unavailable(f"the connection to the shard at {self._address} was closed") from None
        except grpc.RpcError as error:
            raise translated(error, self._address) from None

    def _await(self, remaining_s: float) -> None:
        try:
            self._future.result(timeout=max(remaining_s, 0.0))
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError, grpc.RpcError):
            return  # `done` looks at how it ended

    def _pause_s(self) -> float | None:
        """How long to wait before an ended call is sent again; None when it has its answer."""
        code = self._future.code()
        if code is grpc.StatusCode.OK or time.monotonic() >= self._deadline:
            return None
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _BUSY in str(self._future.details()):
            return _BUSY_PAUSE_S * random.uniform(0.2, 1.0)  # decides nothing but when
        return _FORGOTTEN_PAUSE_S if _forgotten(self._future) else None


def shares_no_longer(future: Any) -> bool:
    """Whether a call that named shared memory ended so that this memory is not to be named again.

    Either the shard does not know the session, or it did not answer: then it may still be at work on the call.
    """
    if future.code() is grpc.StatusCode.OK:
        return False
    refusal = wire.decode_error(str(future.details()))
    busy = future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # turned away, before the shard looked at it
    return isinstance(refusal, NotShared) or (refusal is None and not busy)


def _forgotten(future: Any) -> bool:
    return isinstance(wire.decode_error(str(future.details())), NotShared)


def translated(error: Any, address: str) -> HeadraceError:
    """The typed error the shard raised, or what the transport's status means."""
    details = str(error.details())
    known = wire.decode_error(details)
    if known is not None:
        return known
    text = f"shard at {address}: {details}"
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return Unauthenticated(text)
    if error.code() in _GONE:
        return untrusted(details, address) or Unavailable(text)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Unavailable(text) if _BUSY in details else InvalidRecord(text)
    return ReplayError(text)
