"""Serves one shard over gRPC from threads of this process."""

from __future__ import annotations

import secrets
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from replay_server import sum_tree
from replay_server.channels import SERVER_OPTIONS, check_loopback
from replay_server.errors import ConfigError
from replay_server.messages import Hello
from replay_server.parent_process import ParentProcess
from replay_server.rate_limiter import RateLimiter
from replay_server.service import ReplayService
from replay_server.shard import Shard
from replay_server.shard_config import ShardConfig
from replay_server.specs import RecordSpec
from replay_server.table import Table
from replay_server.wire import MAX_MESSAGE_BYTES

_THREADS = 32
_PARENT_CHECK_S = 0.5
_WAITERS = 12
"""Waiting inserts, and as many waiting samples: a quarter of the threads always answers."""


class ReplayServer:
    """A running shard; `address` is where it listens. A context manager: stops at the end."""

    def __init__(self, shard: Shard, address: str, directory: str | None) -> None:
        check_loopback(address)
        self.shard = shard
        sum_tree.warm_up()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="replay")
        self._server: Any = grpc.server(self._threads, options=SERVER_OPTIONS)
        try:
            port = self._server.add_insecure_port(address)
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
            max_message_bytes=MAX_MESSAGE_BYTES,
            spec=table.spec,
        )
        service = ReplayService(shard, hello, Path(directory) if directory is not None else None)
        self._server.add_generic_rpc_handlers((service.handlers(),))
        self._server.start()

    def stop(self, grace_s: float = 1.0) -> None:
        """Refuse new calls, give those under way `grace_s`, end."""
        self._server.stop(grace_s).wait()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> ReplayServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_server(  # noqa: PLR0913  one flat call for scripts; inside, parts are composed
    spec: RecordSpec,
    capacity: int,
    *,
    address: str = "127.0.0.1:0",
    priority_exponent: float = 0.6,
    sampler: str = "stratified",
    rate_limiter: RateLimiter | None = None,
    seed: int = 0,
    shard_index: int = 0,
    directory: str | None = None,
    restore_from: str | None = None,
) -> ReplayServer:
    """Serve one shard in threads of this process.

    Args:
        spec: layout of the records.
        capacity: records held at most, >= 1.
        address: HOST:PORT on loopback; port 0 takes a free one, see `.address`.
        priority_exponent: alpha in [0, 1].
        sampler: `stratified` or `multinomial`.
        rate_limiter: who may go on; by default one record is enough to sample and inserts never wait.
        seed: of the shard's sampling; give every shard of one replay its own.
        shard_index: 0, 1, ... of the shards of one replay.
        directory: where clients may have the shard save itself; None refuses.
        restore_from: a checkpoint file to start from. Its keys become stale: this is a new life of the shard.

    Raises:
        ConfigError: a setting is wrong or the port is taken.
        CheckpointError: `restore_from` is missing, damaged or of another kind.
    """
    check_loopback(address)
    table = Table(
        spec,
        capacity,
        priority_exponent=priority_exponent,
        seed=seed,
        shard=shard_index,
        incarnation=secrets.randbits(32),
    )
    shard = Shard(table, rate_limiter, sampler=sampler, max_waiters=_WAITERS)
    if restore_from is not None:
        shard.restore(restore_from)
    return ReplayServer(shard, address, directory)


def serve(config: ShardConfig) -> None:
    """Serve a stand-alone shard until SIGTERM or SIGINT (or its parent's end), then drain and return.

    Prints one line when it serves, `serving replay at HOST:PORT ...`. For the main thread of a process.

    Raises:
        ConfigError, SchemaMismatch, CheckpointError: as `start_server`.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    parent = ParentProcess()
    server = start_server(
        config.spec.to_spec(),
        config.capacity,
        address=config.address,
        priority_exponent=config.priority_exponent,
        sampler=config.sampler,
        rate_limiter=config.rate_limiter.to_limiter(),
        seed=config.seed,
        shard_index=config.shard_index,
        directory=config.directory,
        restore_from=config.restore_from,
    )
    with server:
        print(
            f"serving replay at {server.address} shard {config.shard_index}: {_memory(server.shard.table)}", flush=True
        )
        while not ended.wait(_PARENT_CHECK_S):
            if parent.gone():
                break


def _memory(table: Table) -> str:
    """The arithmetic of what the shard will hold when full."""
    records = table.capacity * table.spec.record_size
    overhead = table.overhead_bytes
    return (
        f"{table.capacity:,} x {table.spec.record_size} B = {records / 2**20:,.1f} MiB + tree and generations "
        f"{overhead / 2**20:,.1f} MiB = {(records + overhead) / 2**20:,.1f} MiB"
    )
