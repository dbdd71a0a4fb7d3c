"""`headrace bench broadcast`: how long weights are on their way to actors, their cost to the learner, and their age."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray
from msgspec.structs import replace

from distributed.bench.broadcast_actors import Broadcast, Sending, limit_ms
from distributed.bench.broadcast_report import BroadcastReport, Point, Sent, Staleness, markdown
from distributed.bench.figure import Figure
from distributed.bench.json_report import check_writable
from distributed.bench.machine import Machine
from distributed.bench.peers import PeerProcess
from distributed.bench.staleness import staleness
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.ray_processes import RayProcesses
from distributed.ray_session import start_ray
from distributed.stages import Stages
from replay_server.errors import HeadraceError

SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)
ACTORS = (1, 4, 16, 64)
MOST_OF_PEER = 16
"""Each of RLlib's environment runners takes half a gigabyte and seconds of a processor to start."""

PEER = "rllib"
_RUNS = ("cartpole_dqn", "movie_pick_dqn")
_RUN_ACTORS = 2
_LARGE = 50_000_000
_PEER_START_S = 600.0
_PEER_ANSWER_S = 900.0


@dataclass(frozen=True)
class BroadcastBench:
    """One run.

    Args:
        quick: two small sizes, short times, to see that everything runs.
        json: file for the raw figures.
        peers: interpreter of each peer; only RLlib is one here.
    """

    quick: bool = False
    json: Path | None = None
    peers: Mapping[str, Path] = field(default_factory=dict)

    def run(self) -> int:
        """Measure, print the tables, write the file; 0 also when staleness is above its bound.

        Raises:
            ConfigError: the file cannot be written.
        """
        check_writable(self.json)
        stages, machine, begin = Stages("bench broadcast"), Machine.here(), time.monotonic()
        began = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        stale, stale_missing = self._stale(stages)
        points, facts = self._points(stages)
        report = BroadcastReport(
            machine=machine,
            began=began,
            took_s=round(time.monotonic() - begin, 1),
            quick=self.quick,
            turns=self._turns,
            points=tuple(sorted(points, key=lambda point: (point.bytes_, point.actors))),
            stale=tuple(stale),
            stale_missing=stale_missing,
            peer=facts,
            load_after=round(os.getloadavg()[0], 2),
        )
        print(markdown(report), end="")
        if self.json is not None:
            report.write(self.json)
        return 0

    @property
    def _turns(self) -> int:
        return 2 if self.quick else 5

    def _stale(self, stages: Stages) -> tuple[list[Staleness], dict[str, str]]:
        found, missing = [], {}
        for name in _RUNS[:1] if self.quick else _RUNS:
            with stages.stage(f"{name} with {_RUN_ACTORS} actors"):
                try:
                    found.append(staleness(name, _RUN_ACTORS, 4.0 if self.quick else 30.0))
                except HeadraceError as error:
                    missing[name] = str(error)
        return found, missing

    @contextmanager
    def _peer(self, stages: Stages) -> Iterator[tuple[PeerProcess | None, str | None]]:
        """The peer, or why it is not there; neither where nobody asked for it."""
        if PEER not in self.peers:
            yield None, None
            return
        with stages.stage("starting RLlib"):
            try:
                peer = PeerProcess(PEER, self.peers[PEER], {"actors": self._most_of_peer}, _PEER_START_S)
            except HeadraceError as error:
                peer, why = None, str(error)
        if peer is None:
            yield None, why
            return
        with peer:
            yield peer, None

    @property
    def _most_of_peer(self) -> int:
        return 2 if self.quick else MOST_OF_PEER

    def _points(self, stages: Stages) -> tuple[list[Point], dict[str, str]]:
        """All points, and what the peer says of itself; it has ended before there are more actors than it can have."""
        config = load_experiment(find_config(_RUNS[0]), ()).config
        owned = start_ray(config)
        try:
            broadcast = Broadcast(RayProcesses(config, private=True))
            counts, most = (1, 2) if self.quick else ACTORS, self._most_of_peer
            with self._peer(stages) as (peer, why):
                points = self._points_of([n for n in counts if n <= most], stages, broadcast, peer, why)
                facts = {} if peer is None else {name: str(fact) for name, fact in peer.facts.items()}
            if points[-1].missing is None:
                why = why or (f"not asked above {most}: half a gigabyte each" if peer is not None else None)
                points += self._points_of([n for n in counts if n > most], stages, broadcast, None, why)
            facts.pop("ready", None)
            return points, facts
        finally:
            if owned:
                ray.shutdown()

    def _points_of(
        self, counts: Sequence[int], stages: Stages, broadcast: Broadcast, peer: PeerProcess | None, why: str | None
    ) -> list[Point]:
        points = []
        for actors in counts:
            for size in SIZES[:2] if self.quick else SIZES:
                with stages.stage(f"{size / 1e6:g} MB to {actors} actors"):
                    points.append(self._point(broadcast, size, actors, peer, why))
                if points[-1].missing is not None:  # who knows which of the processes are left
                    return points
        return points

    def _point(self, broadcast: Broadcast, size: int, actors: int, peer: PeerProcess | None, why: str | None) -> Point:
        """Ours and theirs in turn."""
        versions = 3 if self.quick or size >= _LARGE else 6
        point = Point(size, actors, limit_ms(size, 5), peer_missing=why)
        ours: list[Sending] = []
        theirs: list[Sending] = []
        try:
            broadcast.grow(actors)
            broadcast.resize(size)
            for _ in range(self._turns):
                ours.append(broadcast.measure(actors, versions))
                if peer is not None and not point.peer_missing:
                    try:
                        answer = peer.ask(f"sync {size} {actors} {versions}", _PEER_ANSWER_S)
                        theirs.append(Sending(answer["latency_ms"], answer["publish_ms"]))
                        point = replace(point, peer_bytes=answer["bytes"])
                    except HeadraceError as error:
                        point = replace(point, peer_missing=str(error))
        except Exception as error:  # memory that is not there, above all: what was measured before is kept
            return replace(point, missing=" ".join(str(error).split())[:200])
        sent = _sent(ours)
        point = replace(point, ours=sent, delivered_mb_per_s=1e-3 * size * actors / sent.p99_ms.median)
        if len(theirs) < self._turns:
            return point
        other = _sent(theirs)
        return replace(point, peer=other, ratio=other.p50_ms.over(sent.p50_ms))


def _sent(turns: list[Sending]) -> Sent:
    return Sent(
        p50_ms=Figure.of([float(np.percentile(turn.latency_ms, 50)) for turn in turns]),
        p99_ms=Figure.of([float(np.percentile(turn.latency_ms, 99)) for turn in turns]),
        publish_ms=Figure.of([float(np.median(turn.publish_ms)) for turn in turns]),
    )
