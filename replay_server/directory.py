"""Where shards are now, for clients of shards that may come back elsewhere."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class ShardDirectory(Protocol):
    """Knows the addresses of a replay's shards. A client asks it before every call."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """HOST:PORT of every shard, now."""

    def address(self, shard: int) -> str | None:
        """HOST:PORT where the shard of this index serves; None when nobody knows. Never waits."""
