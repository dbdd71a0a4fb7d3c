"""Starts a shard: in threads of this process, or as a program of its own."""

from __future__ import annotations

import secrets
import signal
import threading

from replay_server.parent_process import ParentProcess
from replay_server.rate_limiter import RateLimiter
from replay_server.security import ServerTLS, server_credentials
from replay_server.server import WAITERS, ReplayServer
from replay_server.shard import Shard
from replay_server.shard_config import ShardConfig
from replay_server.specs import RecordSpec
from replay_server.table import Table

_PARENT_CHECK_S = 0.5


def start_server(  # noqa: PLR0913  one flat call for scripts; inside, parts are composed
    spec: RecordSpec,
    capacity: int,
    address: str = "127.0.0.1:0",
    *,
    priority_exponent: float = 0.6,
    sampler: str = "stratified",
    rate_limiter: RateLimiter | None = None,
    seed: int = 0,
    shard_index: int = 0,
    directory: str | None = None,
    restore_from: str | None = None,
    token_file: str | None = None,
    tls: ServerTLS | None = None,
    insecure: bool = False,
) -> ReplayServer:
    """Serve one shard in threads of this process.

    Args:
        spec: layout of the records.
        capacity: records held at most, >= 1.
        address: HOST:PORT; port 0 takes a free one, see `.address`. Off loopback it needs `tls` and a token.
        priority_exponent: alpha in [0, 1].
        sampler: `stratified` or `multinomial`.
        rate_limiter: who may go on; by default one record is enough to sample and inserts never wait.
        seed: of the shard's sampling; give every shard of one replay its own.
        shard_index: 0, 1, ... of the shards of one replay.
        directory: where clients may have the shard save itself; None refuses.
        restore_from: a checkpoint file to start from. Its keys become stale: this is a new life of the shard.
        token_file: file with the token callers must show; None takes HEADRACE_TOKEN, else asks for none.
        tls: certificate and key; None for plaintext.
        insecure: serve other machines without TLS or token.

    Raises:
        ConfigError: a setting is wrong or the port is taken.
        CheckpointError: `restore_from` is missing, damaged or of another kind.
    """
    security = server_credentials(address, token_file, tls, insecure)
    table = Table(
        spec,
        capacity,
        priority_exponent=priority_exponent,
        sampler=sampler,
        seed=seed,
        shard=shard_index,
        incarnation=secrets.randbits(32),
    )
    shard = Shard(table, rate_limiter, max_waiters=WAITERS)
    if restore_from is not None:
        shard.restore(restore_from)
    return ReplayServer(shard, address, directory, security)


def serve(config: ShardConfig, *, insecure: bool = False) -> None:
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
        token_file=config.token_file,
        tls=config.tls,
        insecure=insecure,
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
