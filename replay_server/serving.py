"""Starts a shard: in threads of this process, or as a program of its own."""

from __future__ import annotations

import signal
import threading
from difflib import get_close_matches
from typing import Any

import msgspec

from replay_server.errors import ConfigError
from replay_server.parent_process import ParentProcess
from replay_server.process_limits import prepare_process
from replay_server.rate_limiter import RateLimiter
from replay_server.security import ServerSecurity, server_credentials
from replay_server.server import ReplayServer
from replay_server.shard import Shard
from replay_server.shard_config import RateLimiterConfig, ShardConfig, SpecConfig
from replay_server.shard_making import make_shard
from replay_server.specs import RecordSpec

_PARENT_CHECK_S = 0.5


def start_server(
    spec: RecordSpec,
    capacity: int = 1_000_000,
    address: str = "127.0.0.1:0",
    *,
    rate_limiter: RateLimiter | None = None,
    insecure: bool = False,
    salvage: bool = False,
    **settings: Any,
) -> ReplayServer:
    """Serve one shard in threads of this process.

    Args:
        spec: layout of the records.
        capacity: records held at most, >= 1.
        address: HOST:PORT; port 0 takes a free one, see `.address`. Off loopback it needs `tls` and a token.
        rate_limiter: who may go on; by default one record is enough to sample and inserts never wait.
        insecure: serve other machines without TLS or token.
        salvage: leave out what is damaged in the journal, instead of refusing to start.
        settings: any other setting of a shard's config file by its name, see `ShardConfig`: `sampler="uniform"`,
            `seed=3`, `token_file="token"`, `tls=ServerTLS(...)`, ...

    Raises:
        ConfigError: a setting is unknown or wrong, the port is taken, or the shard would not fit into memory.
        CheckpointError: `restore_from` is missing, damaged or of another kind.
        JournalError: the journal is damaged, or of another spec, shard or capacity.
    """
    if rate_limiter is not None and not isinstance(rate_limiter, RateLimiter):
        raise ConfigError("start_server: rate_limiter is not a RateLimiter, such as RateLimiter.queue(1000)")
    limiter = rate_limiter or RateLimiter()
    return open_server(_config(spec, capacity, address, limiter, settings), insecure=insecure, salvage=salvage)


def open_server(config: ShardConfig, *, insecure: bool = False, salvage: bool = False) -> ReplayServer:
    """Serve the shard of a config in threads of this process; raises as `start_server`."""
    security = server_credentials(config.address, config.token_file, config.tls, insecure)
    return _serve_shard(config, make_shard(config, salvage=salvage).shard, security)


def serve(config: ShardConfig, *, insecure: bool = False, salvage: bool = False) -> None:
    """Serve a stand-alone shard until SIGTERM or SIGINT, then drain and return; or until its parent has ended.

    Prints one line when it serves, `serving replay at HOST:PORT ...`. For the main thread of a process.

    Args:
        config: of the shard.
        insecure: serve other machines without TLS or token.
        salvage: leave out what is damaged in the journal.

    Raises:
        ConfigError, SchemaMismatch, CheckpointError, JournalError: as `start_server`.
    """
    prepare_process()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    parent = ParentProcess()
    security = server_credentials(config.address, config.token_file, config.tls, insecure)
    made = make_shard(config, salvage=salvage)
    with _serve_shard(config, made.shard, security) as server:
        metrics = "" if server.metrics is None else f"; metrics at http://{server.metrics.address}/metrics"
        print(
            f"serving replay at {server.address} shard {config.shard_index}: {made.budget}{made.recovery}{metrics}",
            flush=True,
        )
        while not ended.wait(_PARENT_CHECK_S):
            parent.end_with_it()


def _serve_shard(config: ShardConfig, shard: Shard, security: ServerSecurity) -> ReplayServer:
    try:
        server = ReplayServer(shard, config.address, config.save_directory or config.directory, security, config.table)
    except ConfigError:
        shard.close()
        raise
    if config.metrics_port is not None:
        try:
            server.serve_metrics(config.metrics_port, config.metrics_host)
        except ConfigError:
            server.stop()
            raise
    return server


def _config(
    spec: RecordSpec, capacity: int, address: str, limiter: RateLimiter, settings: dict[str, Any]
) -> ShardConfig:
    """Keywords checked as a config file is."""
    for name in settings:
        if name not in ShardConfig.__struct_fields__:
            close = get_close_matches(name, ShardConfig.__struct_fields__, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(ShardConfig.__struct_fields__)}"
            raise ConfigError(f"start_server: unknown setting {name}; {hint}")
    parts = {"spec": SpecConfig.of(spec), "rate_limiter": RateLimiterConfig.of(limiter)}
    try:
        return msgspec.convert({"capacity": capacity, "address": address, **parts, **settings}, ShardConfig)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        raise ConfigError(f"{place.rstrip('`') or 'start_server'}: {problem}") from None
