"""`headrace status`: how runs are, and replay shards: how fast they go, and who waits for what."""

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

from distributed import life_sign
from distributed.run_screen import ENDED, print_run
from distributed.status_screen import print_shard
from replay_server.errors import ConfigError, HeadraceError
from replay_server.rates import rates
from replay_server.replay import ShardStats
from replay_server.security import TLS, TOKEN_VARIABLE, ClientSecurity, client_credentials, split_address

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
    """Print the state of every run and shard; returns 0, or 1 when a shard is out of reach or a run ended badly.

    Args:
        names: run directories, and HOST:PORT of shards. A run's own shards are asked too where a token is given.
        as_json: one JSON object in place of text.
        token_file: as in `connect`.
        tls: as in `connect`.

    Raises:
        ConfigError: a name is neither, or a file is wrong.
    """
    runs = [run_state(path) for name in names if Path(name).is_dir() for path in _runs_in(Path(name))]
    addresses = [name for name in names if not Path(name).is_dir()]
    for address in addresses:
        _check(address)
    if token_file is not None or TOKEN_VARIABLE in os.environ:
        addresses += [address for run in runs for address in _shards_of(run) if address not in addresses]
    looks = _look_at(addresses, client_credentials(token_file, tls))
    if as_json:
        parts = {"runs": runs} if runs else {}
        print(json.dumps(parts | ({"shards": [_document(look) for look in looks]} if looks else {})))
    else:
        for run in runs:
            print_run(run)
        for look in looks:
            if look.before is not None and look.after is not None:
                print_shard(look.address, look.before, look.after)
    errors = [look.error for look in looks if look.error is not None]
    for error in errors:
        print(f"headrace: error: {' '.join(error.split())}", file=sys.stderr)
    return 1 if errors or any(run["advice"] is not None and run["state"] != "interrupted" for run in runs) else 0


def run_state(directory: Path) -> dict[str, Any]:
    """A run's `status.json`, with what can be told beside it.

    Added are `now`, `age` (seconds since its driver's newest sign of life), `lives`, `advice` (what to do, or None) and
    `result` (the content of `result.json`, or None).

    Raises:
        ConfigError: the run never wrote one, or it cannot be read.
    """
    try:
        document: dict[str, Any] = json.loads((directory / "status.json").read_text())
        alive = float(document["alive"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{directory}: no readable status.json; is it the directory of a run?") from error
    now = time.time()
    age = max(now - alive, 0.0)
    lives = document["state"] not in ENDED and life_sign.is_there(document["driver"], age)
    written = directory / "result.json"
    result = json.loads(written.read_text()) if document["state"] in ENDED and written.is_file() else None
    told = {"now": now, "age": age, "lives": lives, "result": result, "directory": str(directory)}
    return {**document, **told, "advice": _advice(directory, document["state"], lives)}


def _advice(directory: Path, state: str, lives: bool) -> str | None:
    if state == "done" or lives:
        return None
    if any(directory.glob("checkpoints/[0-9]*/manifest.json")):
        return f"go on with: headrace train --resume {directory}"
    return "start it anew with headrace train: it has no complete checkpoint"


def _runs_in(directory: Path) -> list[Path]:
    """The directory itself, or those of its seeds."""
    seeds = sorted(path for path in directory.glob("seed-*") if path.is_dir())
    return seeds if seeds and not (directory / "config.yaml").is_file() else [directory]


def _check(address: str) -> None:
    if not Path(address).exists() and ":" not in address:
        raise ConfigError(f"{address}: neither a run directory nor the HOST:PORT of a replay shard")
    split_address(address)


def _shards_of(run: dict[str, Any]) -> list[str]:
    """Addresses of the shards of a run that goes on, where they are other processes."""
    if not run["lives"] or run["runtime"] == "serial":
        return []
    shards = run.get("workers", {}).get("shard", [])
    return [shard["address"] for shard in shards if shard["stage"] == "serves" and "address" in shard]


def _look_at(addresses: Sequence[str], security: ClientSecurity) -> list[Look]:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines say again what our own errors say
    if not addresses:
        return []
    with ThreadPoolExecutor(min(len(addresses), 32)) as threads:
        return list(threads.map(lambda address: _look(address, security), addresses))


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
