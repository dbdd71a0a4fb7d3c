"""The data plane: packed records, prioritized tables, shards and their clients. Needs neither torch nor ray.

Importing it is light: what needs grpc, numba or h5py is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from replay_server.batches import SampleBatch
from replay_server.errors import (
    CheckpointError,
    ConfigError,
    Deadlocked,
    HeadraceError,
    InvalidRecord,
    JournalError,
    NotShared,
    ReplayError,
    ReplayTimeout,
    SchemaMismatch,
    StaleEpoch,
    StorageFull,
    Unauthenticated,
    Unavailable,
    WriterEvicted,
)
from replay_server.rate_limiter import RateLimiter
from replay_server.replay import Ack, Replay, ReplayStats, Rows, ShardStats, UpdateReport, Writer
from replay_server.specs import Field, RecordSpec
from replay_server.transitions import transition_spec

if TYPE_CHECKING:
    from replay_server.connecting import connect, in_process
    from replay_server.importance import importance_weights
    from replay_server.security import TLS, ServerTLS
    from replay_server.server import ReplayServer
    from replay_server.serving import start_server
    from replay_server.shard import Shard
    from replay_server.table import Table

_LAZY = {
    "connect": "replay_server.connecting",
    "in_process": "replay_server.connecting",
    "importance_weights": "replay_server.importance",
    "TLS": "replay_server.security",
    "ServerTLS": "replay_server.security",
    "ReplayServer": "replay_server.server",
    "start_server": "replay_server.serving",
    "Shard": "replay_server.shard",
    "Table": "replay_server.table",
}

__all__ = [
    "TLS",
    "Ack",
    "CheckpointError",
    "ConfigError",
    "Deadlocked",
    "Field",
    "HeadraceError",
    "InvalidRecord",
    "JournalError",
    "NotShared",
    "RateLimiter",
    "RecordSpec",
    "Replay",
    "ReplayError",
    "ReplayServer",
    "ReplayStats",
    "ReplayTimeout",
    "Rows",
    "SampleBatch",
    "SchemaMismatch",
    "ServerTLS",
    "Shard",
    "ShardStats",
    "StaleEpoch",
    "StorageFull",
    "Table",
    "Unauthenticated",
    "Unavailable",
    "UpdateReport",
    "Writer",
    "WriterEvicted",
    "connect",
    "importance_weights",
    "in_process",
    "start_server",
    "transition_spec",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
