"""A program that samples and updates until SIGTERM, and notes how every call ended and how long it took."""

from __future__ import annotations

import json
import signal
import sys
import time

import msgspec

from fault.records import SPEC, check_bodies
from replay_server import HeadraceError, connect


class Settings(msgspec.Struct, frozen=True):
    """`addresses` of the shards; `history` is the file; each sample of `rows` has `timeout_s`, then rests `pause_s`."""

    history: str
    addresses: list[str]
    rows: int = 32
    timeout_s: float = 1.0
    pause_s: float = 0.02
    prefetch: int = 2


def main(text: str) -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    settings = msgspec.json.decode(text, type=Settings)
    with (
        connect(settings.addresses, spec=SPEC, prefetch=settings.prefetch) as replay,
        open(settings.history, "a", buffering=1) as history,
    ):
        while not ended:
            begin = time.monotonic()
            note: dict[str, object] = {"op": "sample"}
            try:
                batch = replay.sample(settings.rows, timeout_s=settings.timeout_s)
                check_bodies(batch.columns)
                note["shards"] = sorted(set(batch.keys["shard"].tolist()))
                replay.update_priorities(batch.keys, batch.columns["x"][:, 0].astype(float) + 1.0)
            except HeadraceError as error:
                note = {"op": "failed", "note": f"{type(error).__name__}: {error}"}
            took = time.monotonic() - begin
            history.write(json.dumps({"t": begin, "took": round(took, 4), **note}) + "\n")
            time.sleep(settings.pause_s)


if __name__ == "__main__":
    main(sys.argv[1])
