"""Reads the one message of a call, and ends calls whose message does not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from replay_server.errors import InvalidRecord

HURRIED_S = 5.0
PATIENT_S = 60.0
_CHECK_S = 0.5


class Arrivals:
    """Calls that hold a thread while their message is on its way. Thread-safe.

    gRPC's own handlers of one message wait for it as long as the connection lives: a few dozen callers who never send
    theirs would take every thread of a server. Handlers here take a stream and read its first message, which is
    the same on the wire, with a deadline: 60 s, for slow lines, and 5 s as soon as more than `few` calls wait.

    Args:
        few: calls that may take their time.
    """

    def __init__(self, few: int) -> None:
        self._few = few
        self._waiting: dict[Any, float] = {}  # contexts in the order they came, and when
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="arrivals", daemon=True)
        self._keeper.start()

    def __len__(self) -> int:
        """Calls that wait for their message."""
        return len(self._waiting)

    def first(self, messages: Iterator[Any], context: Any) -> Any:
        """The message of a call.

        Raises:
            InvalidRecord: the call ended without one.
            grpc.RpcError: it was cancelled, by the caller or for being late.
        """
        with self._lock:
            self._waiting[context] = time.monotonic()
        try:
            return next(messages)
        except StopIteration:
            raise InvalidRecord("a call without a message") from None
        finally:
            with self._lock:
                del self._waiting[context]

    def end_late(self, now: float) -> None:
        """Cancel the calls whose time is up."""
        with self._lock:  # held over the cancel: a call whose message is read is no longer ours to end
            patience_s = HURRIED_S if len(self._waiting) > self._few else PATIENT_S
            for context, since in self._waiting.items():
                if now - since < patience_s:
                    break
                context.cancel()

    def close(self) -> None:
        self._ended.set()
        self._keeper.join()

    def _keep(self) -> None:
        while not self._ended.wait(_CHECK_S):
            self.end_late(time.monotonic())
