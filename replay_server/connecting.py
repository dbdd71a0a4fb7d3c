"""Opens a replay: over gRPC, or over shards in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from replay_server.client import ReplayClient
from replay_server.directory import ShardDirectory
from replay_server.errors import ConfigError, HeadraceError
from replay_server.security import TLS, client_credentials
from replay_server.specs import RecordSpec, check_same_spec

if TYPE_CHECKING:
    from replay_server.shard import Shard


def connect(
    addresses: Sequence[str] | ShardDirectory,
    spec: RecordSpec | None = None,
    *,
    transport: str = "auto",
    prefetch: int = 8,
    timeout_s: float = 10.0,
    seed: int | None = None,
    token_file: str | None = None,
    tls: TLS | None = None,
) -> ReplayClient:
    """Connect to the shards of one replay.

    Args:
        addresses: HOST:PORT of every shard, in any order; or who knows them, also of shards that come back elsewhere.
        spec: what the records must be; None takes what the shards hold.
        transport: `auto` shares memory with shards on this host and speaks gRPC alone to others; `grpc`; `shm`.
        prefetch: batches asked for ahead of `sample`, twice as many over several shards; 0 for a client that only
            writes, or wants no stale priorities. Records that leave by being sampled are never asked for ahead.
        timeout_s: how long to try, for all shards together.
        seed: of the choice of shards; None takes entropy from the system.
        token_file: file with the shards' token; None takes HEADRACE_TOKEN, else none is sent.
        tls: for shards that speak TLS.

    Raises:
        Unavailable: a shard did not answer in time.
        Unauthenticated: a wrong token, or one side does not trust the other.
        NotShared: transport `shm`, and why a shard cannot share memory with this process.
        SchemaMismatch: a shard holds other records; the message names the differences.
        ConfigError: no address, or two shards of one index.
    """
    from replay_server.remote import RemoteShard

    directory: ShardDirectory | None = None
    if isinstance(addresses, ShardDirectory):
        directory, addresses = addresses, addresses.addresses
    if isinstance(addresses, str) or not addresses:
        raise ConfigError("connect takes a list of one or more HOST:PORT addresses")
    security = client_credentials(token_file, tls)

    def open_shard(address: str, timeout_s: float) -> RemoteShard:
        port = RemoteShard(address, timeout_s, security, transport=transport, directory=directory)
        try:
            if spec is not None:
                check_same_spec(spec, port.hello.spec, address)
        except HeadraceError:
            port.close()
            raise
        return port

    deadline = time.monotonic() + timeout_s
    ports: list[RemoteShard] = []
    try:
        for address in addresses:
            ports.append(open_shard(address, max(deadline - time.monotonic(), 0.1)))
        return ReplayClient(ports, prefetch=prefetch, seed=seed, open_shard=open_shard)
    except HeadraceError:
        for port in ports:
            port.close()
        raise


def in_process(shards: Sequence[Shard], *, seed: int | None = None) -> ReplayClient:
    """A replay over shards of this process, deterministic in one thread for a fixed seed."""
    from replay_server.local import LocalShard

    return ReplayClient([LocalShard(shard) for shard in shards], seed=seed)
