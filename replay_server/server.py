"""Serves one shard over gRPC from threads of this process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from replay_server.channels import server_options
from replay_server.errors import ConfigError
from replay_server.frames import DEFAULT_TABLE
from replay_server.messages import Hello
from replay_server.metrics import MetricsEndpoint
from replay_server.security import ServerSecurity
from replay_server.service import ReplayService
from replay_server.shard import Shard
from replay_server.table import warm_up
from replay_server.token_guard import TokenGuard
from replay_server.wire import MAX_REPLY_BYTES, max_request_bytes

_THREADS = 32
WAITERS = 12
"""Waiting inserts, and as many waiting samples: a quarter of the threads always answers."""


class ReplayServer:
    """A running shard; `address` is where it listens. A context manager: stops at the end.

    Args:
        shard: what is served.
        address: HOST:PORT; port 0 takes a free one.
        directory: where clients may have the shard save itself; None refuses.
        security: who may connect, and how it is protected.
        name: of the table, 1 to 16 ASCII characters; frames for another one are refused.
    """

    def __init__(
        self, shard: Shard, address: str, directory: str | None, security: ServerSecurity, name: str = DEFAULT_TABLE
    ) -> None:
        self.shard = shard
        warm_up()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="replay")
        guards = (TokenGuard(security.token),) if security.token is not None else ()
        self._server: Any = grpc.server(self._threads, options=server_options(shard.table.spec), interceptors=guards)
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
        table = shard.table
        hello = Hello(
            address=self.address,
            shard=table.shard,
            incarnation=table.incarnation,
            capacity=table.capacity,
            min_size=shard.limiter.min_size,
            max_message_bytes=MAX_REPLY_BYTES,
            max_request_bytes=max_request_bytes(table.spec),
            spec=table.spec,
            table=name,
        )
        self.metrics: MetricsEndpoint | None = None
        self._service = ReplayService(shard, hello, Path(directory) if directory is not None else None)
        self._server.add_generic_rpc_handlers((self._service.handlers(),))
        self._server.start()

    def serve_metrics(self, port: int) -> None:
        """Answer Prometheus on loopback until the server stops; raises ConfigError as `MetricsEndpoint`."""
        self.metrics = MetricsEndpoint(self._service.stats, port)

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, give those under way `grace_s`, end."""
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = None
        self._server.stop(grace_s).wait()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> ReplayServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
