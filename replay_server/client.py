"""The client of a replay: one implementation for one shard or many, in this process or behind gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import SampleBatch, whole_batch_size
from replay_server.clock import Clock, SystemClock
from replay_server.consuming import Consumption
from replay_server.errors import ConfigError, HeadraceError, Unavailable
from replay_server.inserting import Inserting
from replay_server.members import Asked, Members
from replay_server.messages import Call, SavedFile, ShardPort, UpdateReply, UpdateRequest
from replay_server.reasons import WaitTimes
from replay_server.replay import Ack, ReplayStats, Rows, ShardStats, UpdateReport
from replay_server.sampling import Sampling
from replay_server.sharding import ShareFunction, mass_shares
from replay_server.specs import RecordSpec
from replay_server.writer import SMALL_ROWS, StreamWriter

_CLOSE_S = 1.0
_SAVE_S = 60.0
_STATS_S = 2.0

OpenShard = Callable[[str, float], ShardPort]
"""Connects to the shard at HOST:PORT within so many seconds."""


class ReplayClient:
    """Implements `replay_server.replay.Replay`. For one thread, except `stats`; threads open one each.

    A shard that does not answer is left out, its share of the mass is dropped from shares and weights, and it comes
    back by itself (`members.Members`).

    Args:
        ports: the shards, each with its own index.
        prefetch: batches asked for ahead of `sample`, twice as many over several shards; 0 is strictly synchronous
            and, with in-process shards, deterministic. Priorities of a prefetched batch are older by as many updates.
            Shards whose records leave when they are sampled are never asked ahead.
        seed: of the choice of shards; None takes entropy from the system.
        shares: how draws are spread over shards.
        clock: of waits.
        open_shard: connects to a shard that is added later; None when none can be.

    Raises:
        ConfigError: no shard, a shard twice, or a negative prefetch.
        SchemaMismatch: the shards do not hold the same records.
    """

    def __init__(
        self,
        ports: Sequence[ShardPort],
        *,
        prefetch: int = 0,
        seed: int | None = None,
        shares: ShareFunction = mass_shares,
        clock: Clock | None = None,
        open_shard: OpenShard | None = None,
    ) -> None:
        if prefetch < 0:
            raise ConfigError(f"prefetch is {prefetch}, must be at least 0")
        self._clock: Clock = clock or SystemClock()
        self._open_shard = open_shard
        self._waits = WaitTimes()
        self._members = Members(ports, self._clock)
        drawing, identity, jitter = np.random.SeedSequence(seed).spawn(3)
        if not all(port.synchronous for port in ports):  # two clients of one seed must not pass for one writer
            identity = np.random.SeedSequence()
        self._rng = np.random.Generator(np.random.PCG64(drawing))
        number = int(identity.generate_state(1, np.uint64)[0])
        self._inserting = Inserting(self._members, number, self._clock, self._waits)
        self._consumption = Consumption(self._members, self._rng, self._clock)
        self._last_stats: dict[int, ShardStats] = {}
        self._sampling = Sampling(
            self._members,
            prefetch=prefetch,
            shares=shares,
            rng=self._rng,
            jitter=np.random.Generator(np.random.PCG64(jitter)),
            clock=self._clock,
            waits=self._waits,
        )

    @property
    def spec(self) -> RecordSpec:
        return self._members.spec

    @property
    def share_deviation(self) -> float:
        """Total variation distance between the shard shares of the last batch and those when it was served."""
        return self._sampling.share_deviation

    def insert(self, rows: Rows, priorities: NDArray[np.float64] | None = None, *, timeout_s: float = 5.0) -> Ack:
        """Store rows and return when they are acknowledged; shards that answer take turns.

        Args:
            rows: columns {name: [B, *shape]} or packed records uint8[B, record_size].
            priorities: float64[B], finite and >= 0; None for the largest in the shard.

        Returns:
            Counts of records; those of a shard that could not be reached in time are `unknown`.

        Raises:
            ReplayTimeout: the shard did not let the records in; none was stored and none will be.
            StorageFull: the shard's disk is full; none was stored and none will be.
            Unavailable: no shard answers; none was stored.
            InvalidRecord: wrong layout or value; of a chunk (4096 rows at most) that holds it nothing was stored; other
                chunks may have been.
            JournalError: the shard's disk failed to write back; the records may or may not be stored.
        """
        return self._inserting.insert(rows, priorities, timeout_s)

    def writer(
        self,
        *,
        writer_id: int | None = None,
        epoch: int = 0,
        max_in_flight: int = 8,
        shard: int | None = None,
        gather_rows: int = SMALL_ROWS,
    ) -> StreamWriter:
        """Open a stream of inserts into one shard; the same id with a higher epoch fences the older writer.

        Args:
            writer_id: 0 .. 2^64 - 1; None takes a random one.
            epoch: 0 .. 2^32 - 1.
            max_in_flight: chunks under way at most, 1 .. 1024.
            shard: index of the shard; None chooses by rendezvous hash of the id, the same for every client.
            gather_rows: rows of small appends gathered for one chunk; with the window it bounds how far the shard lags.

        Raises:
            ConfigError: a number out of range or an unknown shard.
        """
        return self._inserting.writer(writer_id, epoch, max_in_flight, shard, gather_rows)

    def sample(self, batch_size: int, *, timeout_s: float = 5.0) -> SampleBatch:
        """Draw records with replacement, with probability proportional to p^alpha over all shards that answer.

        Queued priority updates travel with the request. Records may be read-only views of the received message.

        Raises:
            ReplayTimeout: with the reason; what is under way is kept for the next call.
            Unavailable: no shard answers; the message names them.
            InvalidRecord: a batch size that is no whole number, below 1 or too large for a message; nothing changed.
        """
        batch_size = whole_batch_size(batch_size)
        deadline = self._clock.now() + timeout_s
        if self._members.consuming:
            return self._consumption.next(batch_size, deadline)
        return self._sampling.next(batch_size, deadline)

    def update_priorities(self, keys: NDArray[Any], priorities: NDArray[np.float64]) -> None:
        """Queue new priorities float64[B] (in [0, 1e100]) for sampled keys KEY_DTYPE[B].

        They travel with the next sample request of their shard, or with `flush`. Of equal keys in one request the last
        wins; requests under way at the same time may be applied in any order.

        Raises:
            InvalidRecord: wrong dtype, shape or value; nothing was queued.
        """
        self._members.updates.add(keys, priorities)

    def flush(self, *, timeout_s: float = 5.0) -> UpdateReport:
        """Send what is queued and report updates applied and stale since the last report.

        Updates of a shard that is left out wait until it is back; lost with a shard, they count as stale.

        Raises:
            ReplayTimeout: no answer in time.
            Unavailable: no shard answers.
        """
        deadline = self._clock.now() + timeout_s
        self._members.await_live(deadline)
        calls: list[tuple[Asked[UpdateReply], int]] = []
        for position in np.flatnonzero(self._members.live).tolist():
            while self._members.live[position] and len(updates := self._members.updates.take(position)):
                request = UpdateRequest(updates)
                calls.append((self._members.ask(position, lambda port: port.update(request)), len(updates)))  # noqa: B023
        for asked, count in calls:
            try:
                reply = self._members.answer(asked, deadline)
            except Unavailable:
                self._members.updates.count(0, count)
                continue
            self._members.saw(asked, reply.view)
            self._members.updates.count(reply.applied, reply.stale)
        return self._members.updates.take_report()

    def stats(self) -> ReplayStats:
        """Counters of every shard now; one that is left out or does not answer within 2 s shows its last and why."""
        members, deadline = self._members, self._clock.now() + _STATS_S
        calls = [members.ports[p].stats() if live else None for p, live in enumerate(members.live.tolist())]
        shards = tuple(self._shard_stats(position, call, deadline) for position, call in enumerate(calls))
        return ReplayStats(
            size=sum(s.size for s in shards),
            capacity=sum(s.capacity for s in shards),
            inserted=sum(s.inserted for s in shards),
            sampled=sum(s.sampled for s in shards),
            transport="+".join(sorted({port.transport for port in members.ports})),
            shards=shards,
            share_deviation=self.share_deviation,
            waited=dict(self._waits.seconds),
        )

    def add_shard(self, address: str, *, timeout_s: float = 10.0) -> None:
        """Take one more shard, at HOST:PORT, into the replay; batches asked for ahead are given back.

        Raises:
            Unavailable: it did not answer in time.
            SchemaMismatch: it holds other records.
            ConfigError: it is one of this replay already, samples by another rule, or this replay is in one process.
            Whatever is raised, nothing has changed.
        """
        if self._open_shard is None:
            raise ConfigError("shards can only be added to a replay that was opened with connect")
        port = self._open_shard(address, timeout_s)
        try:
            self._members.check(port.hello)
        except HeadraceError:
            port.close()
            raise
        self._sampling.restart()
        self._members.add(port)

    def clear(self) -> None:
        """Remove every record; keys handed out before become stale, and what was prefetched is dropped.

        Raises:
            Unavailable: a shard does not answer; the others may have been cleared.
        """
        self._sampling.drop()
        self._consumption.clear()
        for position, port in enumerate(self._members.ports):
            self._members.views.see(position, port.clear())

    def save(self, directory: str) -> list[str]:
        """Every shard writes `replay-<shard>.h5` into the directory; returns the names.

        Batches asked for ahead are given back first, so that shards and `state_dict` tell the whole story. A shard
        behind gRPC resolves the directory against the one it was started with and refuses any other place.

        Raises:
            Unavailable: a shard does not answer.
            CheckpointError: refused, or the file cannot be written.
        """
        self._sampling.drop()
        self._sampling.settle(self._clock.now() + _SAVE_S)
        return [port.save(directory) for port in self._members.ports]

    def begin_save(self, directory: str, *, timeout_s: float = 10.0) -> None:
        """Have every shard make the cut of a snapshot now; they write `replay-<shard>.h5` while everything goes on.

        Batches asked for ahead are given back first. Returns when the last cut is made: what one thread does before
        and after the call is before and after the cut of every shard.

        Raises:
            Unavailable, ReplayTimeout: a shard does not answer; others may have begun.
            CheckpointError: a shard refuses, because it is being saved elsewhere or has no such place.
        """
        deadline = self._clock.now() + timeout_s
        self._sampling.drop()
        self._sampling.settle(deadline)
        for call in [port.begin_save(directory) for port in self._members.ports]:
            call.result(max(deadline - self._clock.now(), 0.0))

    def saved(self, directory: str, *, timeout_s: float = 10.0) -> list[SavedFile]:
        """What has become of every shard's snapshot since `begin_save`; for any thread.

        Raises:
            Unavailable, ReplayTimeout: a shard does not answer.
            CheckpointError: one cannot be written, or its shard was started anew since.
        """
        deadline = self._clock.now() + timeout_s
        calls = [port.saved(directory) for port in self._members.ports]
        return [call.result(max(deadline - self._clock.now(), 0.0)) for call in calls]

    def read_saved(self, shard: int, directory: str) -> Iterator[bytes]:
        """The snapshot of one shard that `saved` told is done, piece by piece: for who does not see its disk.

        Raises:
            Unavailable: the shard does not answer.
            CheckpointError: it cannot read the file.
        """
        offset = 0
        while piece := self._members.ports[shard].read_saved(directory, offset):
            offset += len(piece)
            yield piece

    def drop_saved(self, shard: int, directory: str) -> None:
        """Have one shard remove its snapshot; raises as `read_saved`."""
        self._members.ports[shard].drop_saved(directory)

    def close(self) -> None:
        """End writers of `insert`, give unread batches back to the rate limiters, close connections."""
        self._sampling.drop()
        with contextlib.suppress(
            HeadraceError
        ):  # a shard is gone or slow; its limiter then counts a few samples too many
            self._sampling.settle(self._clock.now() + _CLOSE_S)
        for port in self._members.ports:
            port.close()

    def __enter__(self) -> ReplayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state for a bit-exact continuation with prefetch 0: generator, views, queued updates, counters,
        and what was drawn from queues and not handed out yet.
        """
        return {
            "rng": self._rng.bit_generator.state,
            "views": self._members.views.state(),
            "updates": self._members.updates.state(),
            "inserting": self._inserting.state(),
            "consumption": self._consumption.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, on a client of as many shards."""
        self._sampling.drop()
        self._rng.bit_generator.state = dict(state["rng"])
        self._members.views.load(state["views"])
        self._members.updates.load(state["updates"])
        self._inserting.load(state["inserting"])
        self._consumption.load(state["consumption"])

    def _shard_stats(self, position: int, call: Call[ShardStats] | None, deadline: float) -> ShardStats:
        reason = self._members.reason(position)
        if call is not None:
            try:
                self._last_stats[position] = call.result(max(deadline - self._clock.now(), 0.0))
                return self._last_stats[position]
            except HeadraceError as error:
                reason = str(error)
        hello = self._members.ports[position].hello
        last = self._last_stats.get(position) or ShardStats(
            hello.address, 0, hello.capacity, 0, 0.0, 0.0, 0, None, shard=hello.shard
        )
        return replace(last, size=0, priority_mass=0.0, blocked_on=None, state="unreachable", reason=reason)
