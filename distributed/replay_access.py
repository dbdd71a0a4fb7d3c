"""How the processes of a run reach its shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed.private_file import PrivateFile
from distributed.run_secrets import ClientSecrets
from replay_server import TLS, connect
from replay_server.client import ReplayClient
from replay_server.specs import RecordSpec


class ReplayAccess:
    """Where a run's shards are and what opens them; travels to workers. Implements `ShardDirectory`.

    Args:
        shards: HOST:PORT by shard.
        secrets: of shards that the run started; None for shards that run elsewhere, which keep their addresses and
            their own token, in HEADRACE_TOKEN.
    """

    def __init__(self, shards: Mapping[int, str], secrets: ClientSecrets | None) -> None:
        self._shards = dict(shards)
        self._secrets = secrets
        self._files: tuple[PrivateFile, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {"_shards": self._shards, "_secrets": self._secrets, "_files": ()}

    @property
    def addresses(self) -> tuple[str, ...]:
        """HOST:PORT of every shard, now."""
        return tuple(self._shards.values())

    def address(self, shard: int) -> str | None:
        """HOST:PORT where the shard of this index was last known to serve."""
        return self._shards.get(shard)

    def of_actor(self, index: int) -> ReplayAccess:
        """The shard that an actor writes to, alone."""
        shard = list(self._shards)[index % len(self._shards)]
        return ReplayAccess({shard: self._shards[shard]}, self._secrets)

    def moved(self, shards: Mapping[int, str]) -> None:
        """Shards came back elsewhere; clients made here find them."""
        self._shards |= {shard: address for shard, address in shards.items() if shard in self._shards}

    def connect(self, spec: RecordSpec, *, transport: str = "auto", prefetch: int = 0) -> ReplayClient:
        """A client of the shards; raises as `replay_server.connect`."""
        if self._secrets is None:
            return connect(self.addresses, spec=spec, transport=transport, prefetch=prefetch)
        token, tls = PrivateFile("token", self._secrets.token.encode()), None
        self._files += (token,)  # kept for as long as clients may open connections
        if self._secrets.ca is not None:
            ca = PrivateFile("ca", self._secrets.ca)
            self._files += (ca,)
            tls = TLS(ca=str(ca.path))
        return connect(self, spec=spec, transport=transport, prefetch=prefetch, token_file=str(token.path), tls=tls)

    def close(self) -> None:
        """Forget the secrets' files; clients made here open no connection any more."""
        for file in self._files:
            file.close()
        self._files = ()
