"""`status.json` of a run: what `headrace status` reads, written while the run goes on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Literal

from distributed import life_sign
from distributed.processes import Role
from distributed.rates_window import RatesWindow
from distributed.run_directory import RunDirectory
from distributed.runtime import Progress, Runtime
from replay_server.rates import rates
from replay_server.replay import ShardStats

RunState = Literal["starting", "training", "checkpointing", "evaluating", "done", "interrupted", "failed"]

_EVERY_SECONDS = 2.0
_WAIT_SECONDS = 5.0
_LEAST_SHARE = 20  # looking takes at most this share of the driver's time


class RunStatus:
    """Says every two seconds that the driver lives, and what it knows of the run; a context manager.

    The driver makes up the document, a thread writes it: a driver that waits (for nodes, for a final evaluation) shows
    that it is there, with the time of what it last knew. The file is replaced, never half written. A disk that does
    not take it costs the file and nothing else.

    Args:
        run: of which it is the status.
        runtime: asked how its processes are.
        facts: about the run, which stay as they are.
    """

    def __init__(self, run: RunDirectory, runtime: Runtime, facts: Mapping[str, Any]) -> None:
        self._file = run.status
        self._run = run
        self._runtime = runtime
        now = time.time()
        self._document: dict[str, Any] = {
            "run": run.id, **facts, "driver": life_sign.of_this_process(), "started": now, "looked": None,
            "state": "starting", "since": now, "error": None,
        }  # fmt: skip
        self._next = 0.0
        self._window = RatesWindow()
        self._reports: dict[tuple[Role, int], dict[str, Any]] = {}
        self._shards: dict[int, ShardStats] = {}
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write_on, name="status", daemon=True)

    def __enter__(self) -> RunStatus:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end.set()
        self._thread.join(_WAIT_SECONDS)
        if kind is not None:
            self._enter("interrupted" if kind is KeyboardInterrupt else "failed", " ".join(str(error).split()) or None)
        self._write()

    @property
    def document(self) -> dict[str, Any]:
        """As it was last made up."""
        return self._document

    @property
    def due(self) -> bool:
        """Whether it is time for `look`."""
        return time.monotonic() >= self._next

    def enter(self, state: RunState) -> None:
        """The run is in another state."""
        self._enter(state, None)
        self._write()

    def take_in(self, progress: Progress) -> None:
        """Keep everybody's newest report."""
        for index, report in progress.actors.items():
            self._reports[Role.ACTOR, index] = {
                "env_steps": report.env_steps,
                "weights_version": report.policy_version,
                "blocked_on": report.blocked_on,
            }
        for told in progress.learner:
            self._reports[Role.LEARNER, 0] = {
                "updates": told.updates,
                "weights_version": told.weights_version,
                "blocked_on": told.blocked_on,
            }

    def look(self, figures: Mapping[str, Any]) -> None:
        """Make the document up anew.

        Args:
            figures: what the driver knows of the run as a whole; `env_steps` and `updates` are turned into rates.
        """
        begin = time.monotonic()
        stats = self._runtime.replay_stats()
        workers: dict[Role, list[dict[str, Any]]] = {role: [] for role in Role if role is not Role.DRIVER}
        restarts = dict.fromkeys(workers, 0)
        for worker in self._runtime.workers():
            shown = {
                name: value for name, value in asdict(worker).items() if value not in (None, ()) and name != "role"
            }
            workers[worker.role].append(shown | self._reports.get((worker.role, worker.index), {}))
            restarts[worker.role] += worker.restarts
        self._add_shards(workers[Role.SHARD], stats.shards)
        counts = {"env_steps": figures["env_steps"], "updates": figures["updates"]}
        self._document = {
            **self._document,
            **figures,
            "looked": time.time(),
            "per_second": self._window.add(begin, counts),
            "checkpoint": {**figures["checkpoint"], **self._newest_checkpoint()},
            "restarts_by_role": restarts,
            "workers": workers,
        }
        self._next = time.monotonic() + max(_EVERY_SECONDS, _LEAST_SHARE * (time.monotonic() - begin))

    def _add_shards(self, places: list[dict[str, Any]], shards: tuple[ShardStats, ...]) -> None:
        """What shards tell of themselves, and the rates since they last did."""
        known = {place["index"]: place for place in places}
        for stats in shards:
            place = known.get(stats.shard)
            if place is None:  # it runs elsewhere: nobody here supervises it
                place = {"index": stats.shard, "stage": "serves", "restarts": 0, "silent": 0.0, "elsewhere": True}
                places.append(place)
            if stats.state != "serving" and place["stage"] == "serves":
                place |= {"stage": "unreachable", "error": stats.reason}
            before = self._shards.get(stats.shard, stats)
            now = rates(before, stats)
            place |= {
                "address": stats.address, "size": stats.size, "capacity": stats.capacity, "inserted": stats.inserted,
                "sampled": stats.sampled, "blocked_on": stats.blocked_on, "durability": stats.level,
                "inserted_per_second": now.inserted, "drawn_per_second": now.drawn, "waiting": now.waiting,
            }  # fmt: skip
            self._shards[stats.shard] = stats

    def _newest_checkpoint(self) -> dict[str, Any]:
        newest = self._run.complete_checkpoints()[-1:]
        if not newest:
            return {"env_steps": None, "at": None}
        with suppress(OSError):
            return {"env_steps": int(newest[0].name), "at": newest[0].stat().st_mtime}
        return {"env_steps": int(newest[0].name), "at": None}

    def _enter(self, state: RunState, error: str | None) -> None:
        self._document = {**self._document, "state": state, "since": time.time(), "error": error}

    def _write_on(self) -> None:
        while not self._end.wait(_EVERY_SECONDS):
            self._write()

    def _write(self) -> None:
        """Not synced to the disk, unlike what has to survive a crash: the driver would wait for that."""
        text = json.dumps({**self._document, "alive": time.time()}, indent=1)
        beside = self._file.with_name(self._file.name + ".part")
        with self._lock, suppress(OSError):
            beside.write_text(text)
            beside.replace(self._file)
