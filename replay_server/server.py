"""Serves one shard over gRPC from threads of this process."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from replay_server.arrivals import Arrivals
from replay_server.attachments import Attachments
from replay_server.call_meter import CallMeter
from replay_server.channels import WINDOW_BYTES, server_options
from replay_server.compaction import Compactor
from replay_server.errors import ConfigError
from replay_server.frames import DEFAULT_TABLE
from replay_server.health import Health
from replay_server.local import hello_of
from replay_server.metrics import MetricsEndpoint, ShardCollector
from replay_server.reply_budget import ReplyBudget
from replay_server.security import ServerSecurity
from replay_server.service import ReplayService
from replay_server.shard import Shard
from replay_server.specs import RecordSpec
from replay_server.table import warm_up
from replay_server.token_guard import TokenGuard
from replay_server.wire import MAX_REPLY_BYTES, METHODS, max_request_bytes

_THREADS = 32
_CALLS = 256
_REPLY_BYTES = 128 << 20
WAITERS = 12
"""Waiting inserts, and as many waiting samples."""
_REPLY_WAITERS = 4
"""Samples that wait for room for their replies; so some threads always answer."""
_SLOW_REQUESTS = 8
"""Calls that may take long to send their message, see `Arrivals`."""


def message_bytes(spec: RecordSpec) -> int:
    """Most memory that requests and replies under way take, whatever clients do.

    A thread holds one request, which is there three times while it is put together, one at a time; calls that wait for
    a thread hold what HTTP/2 lets them send unasked; gRPC copies every reply once.
    """
    return (_THREADS + 2) * max_request_bytes(spec) + _CALLS * WINDOW_BYTES + 2 * _REPLY_BYTES


class ReplayServer:
    """A running shard; `address` is where it listens. A context manager: stops at the end.

    Args:
        shard: what is served; closed with the server.
        address: HOST:PORT; port 0 takes a free one.
        directory: where clients may have the shard save itself; None refuses.
        security: who may connect, and how it is protected.
        name: of the table, 1 to 16 ASCII characters; frames for another one are refused.
    """

    def __init__(
        self, shard: Shard, address: str, directory: str | None, security: ServerSecurity, name: str = DEFAULT_TABLE
    ) -> None:
        self.shard = shard
        self._stopped = False
        self._compactor: Compactor | None = None
        warm_up()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="replay")
        meter = CallMeter(METHODS)
        guards = (TokenGuard(security.token, meter),) if security.token is not None else ()
        self._server: Any = grpc.server(
            self._threads, options=server_options(shard.table.spec), interceptors=guards, maximum_concurrent_rpcs=_CALLS
        )
        try:
            port = security.listen(self._server, address)
        except RuntimeError:
            port = 0
        if port == 0:
            self._server.stop(None)
            self._threads.shutdown(wait=False)
            raise ConfigError(
                f"address: cannot listen on {address}: the port is taken or not allowed; choose another, or port 0 "
                "for any"
            )
        self.address = f"{address.rpartition(':')[0]}:{port}"
        shard.address = self.address
        hello = dataclasses.replace(
            hello_of(shard),
            max_message_bytes=MAX_REPLY_BYTES,
            max_request_bytes=max_request_bytes(shard.table.spec),
            table=name,
            shared_memory=True,
        )
        self.metrics: MetricsEndpoint | None = None
        self._attachments = Attachments()
        replies = ReplyBudget(_REPLY_BYTES, _REPLY_WAITERS)
        place = Path(directory) if directory is not None else None
        self._service = ReplayService(shard, hello, place, self._attachments, replies, meter)
        self._arrivals = Arrivals(_SLOW_REQUESTS)
        self._health = Health(self._arrivals)
        self._server.add_generic_rpc_handlers((self._service.handlers(self._arrivals), self._health.handlers()))
        self._server.start()
        if shard.durability != "checkpoint":
            self._compactor = Compactor(shard, self._health.serves_no_longer)

    def serve_metrics(self, port: int, host: str) -> None:
        """Answer Prometheus on loopback until the server stops; raises ConfigError as `MetricsEndpoint`."""
        self.metrics = MetricsEndpoint(ShardCollector(self._service.stats), port, host, "metrics_port")

    def stop(self, grace_s: float = 1.0) -> None:
        """Say so to who watches, refuse new calls, give those under way `grace_s`, end.

        Calls that wait are answered within half a second, `blocked`. A second call does nothing.
        """
        if self._stopped:
            return
        self._stopped = True
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = None
        self._health.stop()
        self._server.stop(grace_s).wait()
        self.shard.stop_saving()
        self._service.join_saves()
        self._threads.shutdown(wait=True)
        self._arrivals.close()
        self._attachments.close()
        if self._compactor is not None:
            self._compactor.stop()
        self.shard.close()

    def __enter__(self) -> ReplayServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
