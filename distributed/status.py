"""`headrace status`: what replay shards hold, how fast they go, and who waits for what."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distributed.status_screen import print_shard
from replay_server.errors import ConfigError, HeadraceError
from replay_server.rates import rates
from replay_server.replay import ShardStats
from replay_server.security import TLS, ClientSecurity, client_credentials, split_address

_CONNECT_S = 3.0
_BETWEEN_S = 1.0


@dataclass(frozen=True)
class Look:
    """What one shard said, twice, or why it said nothing."""

    address: str
    before: ShardStats | None = None
    after: ShardStats | None = None
    error: str | None = None


def show_status(names: Sequence[str], *, as_json: bool, token_file: str | None, tls: TLS | None) -> int:
    """Print the state of every shard; returns 0, or 1 when one of them could not be reached.

    Args:
        names: HOST:PORT of each.
        as_json: one JSON object in place of text.
        token_file: as in `connect`.
        tls: as in `connect`.

    Raises:
        ConfigError: an address is none, or a file is wrong.
    """
    for name in names:
        if Path(name).is_dir():
            raise ConfigError(
                f"{name}: is a directory; status reads replay shards at HOST:PORT so far, a run writes its own state "
                "to metrics.jsonl there"
            )
        split_address(name)
    security = client_credentials(token_file, tls)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines say again what our own errors say
    with ThreadPoolExecutor(len(names)) as threads:
        looks = list(threads.map(lambda name: _look(name, security), names))
    if as_json:
        print(json.dumps({"shards": [_document(look) for look in looks]}))
    else:
        for look in looks:
            if look.before is not None and look.after is not None:
                print_shard(look.address, look.before, look.after)
    errors = [look.error for look in looks if look.error is not None]
    for error in errors:
        print(f"headrace: error: {' '.join(error.split())}", file=sys.stderr)
    return 1 if errors else 0


def _look(address: str, security: ClientSecurity) -> Look:
    from replay_server.remote import RemoteShard

    try:
        port = RemoteShard(address, _CONNECT_S, security, transport="grpc")
        try:
            before = port.stats().result(_CONNECT_S)
            time.sleep(_BETWEEN_S)
            return Look(address, before, port.stats().result(_CONNECT_S))
        finally:
            port.close()
    except ConfigError:
        raise
    except HeadraceError as error:
        return Look(address, error=str(error))


def _document(look: Look) -> dict[str, Any]:
    if look.before is None or look.after is None:
        return {"address": look.address, "state": "unreachable", "reason": look.error}
    return {**asdict(look.after), "address": look.address, "per_second": asdict(rates(look.before, look.after))}
