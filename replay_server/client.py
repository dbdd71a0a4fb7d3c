"""The client of a replay: one implementation for one shard or many, in this process or behind gRPC."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE, SampleBatch, checked_priorities
from replay_server.clock import Clock, SystemClock
from replay_server.drawing import Plan, Round, patience
from replay_server.errors import ConfigError, HeadraceError, InvalidRecord, ReplayTimeout, SchemaMismatch
from replay_server.messages import (
    Call,
    SampleReply,
    SampleRequest,
    ShardPort,
    Stamp,
    UpdateReply,
    UpdateRequest,
    Updates,
)
from replay_server.replay import Ack, ReplayStats, Rows, UpdateReport
from replay_server.sharding import ShardViews, ShareFunction, mass_shares
from replay_server.specs import RecordSpec
from replay_server.writer import SMALL_ROWS, StreamWriter

_MOST_UPDATES = 65_536
_ROUND_BYTES = 16 << 20
_POLL_S = 0.02
_CLOSE_S = 1.0
_SAVE_S = 60.0
_STATS_S = 5.0


class ReplayClient:
    """Implements `replay_server.replay.Replay`. For one thread, except `stats`; threads open one each.

    Args:
        ports: the shards, each with its own index.
        prefetch: batches asked for ahead of `sample`; 0 is strictly synchronous and, with in-process shards,
            deterministic. Priorities of a prefetched batch are older by as many updates.
        seed: of the choice of shards; None takes entropy from the system.
        shares: how draws are spread over shards.
        clock: of waits.

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
    ) -> None:
        self._ports = sorted(ports, key=lambda port: port.hello.shard)
        indices = [port.hello.shard for port in self._ports]
        if not indices:
            raise ConfigError("a replay needs at least one shard")
        if len(set(indices)) < len(indices):
            raise ConfigError(f"shard indices {indices} are not all different; give every shard its own")
        if prefetch < 0:
            raise ConfigError(f"prefetch is {prefetch}, must be at least 0")
        for port in self._ports[1:]:
            check_same_spec(self._ports[0].hello.spec, port.hello.spec, port.hello.address)
        self._prefetch = prefetch
        self._shares = shares
        self._clock: Clock = clock or SystemClock()
        sequence = np.random.SeedSequence(seed)
        drawing, identity, jitter = sequence.spawn(3)
        self._rng = np.random.Generator(np.random.PCG64(drawing))
        self._jitter = np.random.Generator(np.random.PCG64(jitter))
        self._identity = int(identity.generate_state(1, np.uint64)[0])
        self._writers: dict[int, StreamWriter] = {}
        self._opened = 0
        self._turn = 0
        self._views = ShardViews([port.hello.min_size for port in self._ports])
        self._rounds: deque[Round] = deque()
        self._batch_size = 0
        self._queued: list[list[Updates]] = [[] for _ in self._ports]
        self._asking: list[tuple[int, Call[SampleReply]]] = []
        self._applied = self._stale = 0
        self._position = {index: position for position, index in enumerate(indices)}
        self.share_deviation = 0.0
        """Total variation distance between the shard shares the last round used and those at its serving."""

    @property
    def spec(self) -> RecordSpec:
        return self._ports[0].hello.spec

    def insert(self, rows: Rows, priorities: NDArray[np.float64] | None = None, *, timeout_s: float = 5.0) -> Ack:
        """Store rows and return when they are acknowledged; shards take turns.

        Args:
            rows: columns {name: [B, *shape]} or packed records uint8[B, record_size].
            priorities: float64[B], finite and >= 0; None for the largest in the shard.

        Returns:
            Counts of records; those of a shard that could not be reached in time are `unknown`.

        Raises:
            ReplayTimeout: the rate limiter did not let the records in; none was stored and none will be.
            InvalidRecord: wrong layout or value; of a chunk (4096 rows at most) that holds it nothing was stored.
        """
        position = self._turn % len(self._ports)
        if position not in self._writers:
            stamp = Stamp((self._identity + position) % 2**64, 0, 0)
            self._writers[position] = StreamWriter(self._ports[position], stamp, max_in_flight=8, clock=self._clock)
        writer = self._writers[position]
        self._turn += 1
        deadline = self._clock.now() + timeout_s
        writer.append(rows, priorities, timeout_s=timeout_s)
        ack = writer.flush(timeout_s=max(deadline - self._clock.now(), 0.0))
        if ack.unknown and writer.blocked_on and ack.unknown == writer.refused and not ack.accepted:
            raise ReplayTimeout(
                f"the rate limiter of shard {writer.shard} waits for more {writer.blocked_on}", writer.blocked_on
            )
        return ack

    def writer(
        self,
        *,
        writer_id: int | None = None,
        epoch: int = 0,
        max_in_flight: int = 8,
        shard: int | None = None,
        first_sequence: int = 0,
        gather_rows: int = SMALL_ROWS,
    ) -> StreamWriter:
        """Open a stream of inserts into one shard; the same id with a higher epoch fences the older writer.

        Args:
            writer_id: 0 .. 2^64 - 1; None takes a random one.
            epoch: 0 .. 2^32 - 1.
            max_in_flight: chunks under way at most.
            shard: index of the shard; None chooses by rendezvous hash of the id, the same for every client.
            gather_rows: rows of small appends gathered for one chunk; with the window it bounds how far the shard lags.
            first_sequence: where an earlier writer of the same id and epoch stopped (`StreamWriter.sequence`).

        Raises:
            ConfigError: a number out of range or an unknown shard.
        """
        if writer_id is None:
            self._opened += 1
            writer_id = (self._identity + len(self._ports) + self._opened) % 2**64
        if not (0 <= writer_id < 2**64 and 0 <= epoch < 2**32 and first_sequence >= 0 and max_in_flight >= 1):
            raise ConfigError(
                f"writer_id {writer_id}, epoch {epoch}, first_sequence {first_sequence} or max_in_flight "
                f"{max_in_flight} is out of range"
            )
        if shard is None:
            shard = max(self._position, key=lambda index: _rendezvous(writer_id, index))
        if shard not in self._position:
            raise ConfigError(f"shard {shard} is not one of {sorted(self._position)}")
        port = self._ports[self._position[shard]]
        stamp = Stamp(writer_id, epoch, first_sequence)
        return StreamWriter(port, stamp, max_in_flight=max_in_flight, gather_rows=gather_rows, clock=self._clock)

    def sample(self, batch_size: int, *, timeout_s: float = 5.0) -> SampleBatch:
        """Draw records with replacement, with probability proportional to p^alpha over all shards.

        Queued priority updates travel with the request. Records may be read-only views of the received message.

        Raises:
            ReplayTimeout: with the reason; what is under way is kept for the next call.
            Unavailable: a shard cannot be reached; what was under way is lost.
            InvalidRecord: a batch size below 1 or too large for a message.
        """
        deadline = self._clock.now() + timeout_s
        if batch_size != self._batch_size or batch_size < 1:
            self._check_batch_size(batch_size)
            self._drop_rounds(min(deadline, self._clock.now() + _CLOSE_S))
            self._batch_size = batch_size
        while True:
            while self._rounds and self._rounds[0].left == 0:
                self._rounds.popleft()
            self._top_up(deadline)
            first = self._rounds[0]
            try:
                finished = first.finish(deadline, self._jitter)
            except ReplayTimeout:
                raise
            except HeadraceError:
                for lost in self._rounds:
                    lost.forget()
                self._rounds.clear()
                raise
            finally:
                self._count(first.take_report())
            if finished:
                break
            self._rounds.popleft()
            first.give_back()
            first.forget()
        self.share_deviation = first.share_deviation()
        batch = first.batch(self.spec)
        if self._prefetch and self._views.masses.sum() > 0.0:
            self._top_up(deadline)
        return batch

    def update_priorities(self, keys: NDArray[Any], priorities: NDArray[np.float64]) -> None:
        """Queue new priorities float64[B] (in [0, 1e100]) for sampled keys KEY_DTYPE[B]; of equal keys the last wins.

        They travel with the next sample request of their shard, or with `flush`.

        Raises:
            InvalidRecord: wrong dtype, shape or value; nothing was queued.
        """
        if keys.dtype != KEY_DTYPE or keys.ndim != 1:
            raise InvalidRecord("update_priorities takes the keys of a batch and one priority for each")
        values = checked_priorities(priorities, len(keys)).copy()
        shards = keys["shard"]
        known = 0
        for index, position in self._position.items():
            mine = shards == index
            count = int(np.count_nonzero(mine))
            known += count
            if count == len(keys):
                self._queued[position].append(Updates(keys.copy(), values))
            elif count:
                self._queued[position].append(Updates(keys[mine], values[mine]))
        self._stale += len(keys) - known

    def flush(self, *, timeout_s: float = 5.0) -> UpdateReport:
        """Send what is queued and report updates applied and stale since the last report.

        Raises:
            ReplayTimeout: no answer in time. Unavailable: a shard cannot be reached.
        """
        deadline = self._clock.now() + timeout_s
        calls: list[tuple[int, Call[UpdateReply]]] = []
        for position, port in enumerate(self._ports):
            while len(updates := self._take_updates(position)):
                calls.append((position, port.update(UpdateRequest(updates))))
        for position, call in calls:
            reply = call.result(deadline - self._clock.now())
            self._views.see(position, reply.view)
            self._count(UpdateReport(reply.applied, reply.stale))
        report = UpdateReport(self._applied, self._stale)
        self._applied = self._stale = 0
        return report

    def stats(self) -> ReplayStats:
        """Counters of every shard now; raises Unavailable."""
        shards = tuple(call.result(_STATS_S) for call in [port.stats() for port in self._ports])
        return ReplayStats(
            size=sum(s.size for s in shards),
            capacity=sum(s.capacity for s in shards),
            inserted=sum(s.inserted for s in shards),
            sampled=sum(s.sampled for s in shards),
            transport="+".join(sorted({port.transport for port in self._ports})),
            shards=shards,
            share_deviation=self.share_deviation,
        )

    def clear(self) -> None:
        """Remove every record; keys handed out before become stale, and what was prefetched is dropped."""
        self._drop_rounds(self._clock.now() + _CLOSE_S)
        for position, port in enumerate(self._ports):
            self._views.see(position, port.clear())

    def save(self, directory: str) -> list[str]:
        """Every shard writes `replay-<shard>.h5` into the directory; returns the names.

        Batches asked for ahead are given back first, so that shards and `state_dict` tell the whole story. A shard
        behind gRPC resolves the directory against the one it was started with and refuses any other place.

        Raises:
            CheckpointError: refused, or the file cannot be written.
        """
        deadline = self._clock.now() + _SAVE_S
        for call in self._drop_rounds(self._clock.now() + _CLOSE_S):
            call.result(max(deadline - self._clock.now(), 0.0))
        return [port.save(directory) for port in self._ports]

    def close(self) -> None:
        """End writers of `insert`, give unread batches back to the rate limiters, close connections."""
        deadline = self._clock.now() + _CLOSE_S
        calls = self._drop_rounds(deadline)
        for call in calls:
            try:
                call.result(max(deadline - self._clock.now(), 0.0))
            except HeadraceError:
                continue  # the shard is gone or slow; its limiter then counts a few samples too many
        for port in self._ports:
            port.close()

    def __enter__(self) -> ReplayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state for a bit-exact continuation with prefetch 0: generator, views, queued updates, counters."""
        return {
            "rng": self._rng.bit_generator.state,
            "views": self._views.state(),
            "queued": [[_updates_to_json(u) for u in queue] for queue in self._queued],
            "applied": self._applied,
            "stale": self._stale,
            "turn": self._turn,
            "identity": self._identity,
            "opened": self._opened,
            "sequences": {str(position): writer.sequence for position, writer in self._writers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, on a client of as many shards."""
        self._drop_rounds(self._clock.now() + _CLOSE_S)
        self._rng.bit_generator.state = dict(state["rng"])
        self._views.load(state["views"])
        self._queued = [[_updates_from_json(u) for u in queue] for queue in state["queued"]]
        self._applied, self._stale, self._turn = state["applied"], state["stale"], state["turn"]
        self._identity, self._opened = state["identity"], state["opened"]
        self._writers = {
            int(position): StreamWriter(
                self._ports[int(position)],
                Stamp((self._identity + int(position)) % 2**64, 0, sequence),
                clock=self._clock,
            )
            for position, sequence in state["sequences"].items()
        }

    def _check_batch_size(self, batch_size: int) -> None:
        if batch_size < 1:
            raise InvalidRecord(f"batch size is {batch_size}, must be at least 1")
        most = min(port.hello.max_message_bytes for port in self._ports)
        if self._batch_bytes(batch_size) > most:
            raise InvalidRecord(
                f"a batch of {batch_size} makes {self._batch_bytes(batch_size)} bytes, a message holds {most}"
            )

    def _batch_bytes(self, batch_size: int) -> int:
        return 256 + batch_size * (self.spec.record_size + KEY_DTYPE.itemsize + 8)

    def _top_up(self, deadline: float) -> None:
        """Ask ahead until `prefetch` batches are under way or read, and for one at least."""
        together = max(1, min(self._prefetch // 2, _ROUND_BYTES // self._batch_bytes(self._batch_size)))
        ahead = sum(r.left for r in self._rounds)
        while not ahead or ahead + together <= self._prefetch:
            self._await_mass(deadline)
            self._rounds.append(self._plan_round(together, deadline))
            ahead += together

    def _plan_round(self, batches: int, deadline: float) -> Round:
        shares = self._shares(self._views.masses)
        if len(self._ports) == 1:
            counts = np.full((batches, 1), self._batch_size, np.int64)
        else:
            counts = self._rng.multinomial(self._batch_size, shares, size=batches)
        updates = {position: self._take_updates(position) for position in range(len(self._ports))}
        plan = Plan(counts, shares, self._views.credits(float(batches * self._batch_size)), updates)
        planned = Round(self._ports, self._views, plan, patience(deadline, self._clock), self._clock)
        for position, left in plan.updates.items():  # shards this round does not ask
            if len(left):
                self._queued[position].insert(0, left)
        return planned

    def _await_mass(self, deadline: float) -> None:
        """Until some shard may be drawn from, by what it last said; asks them again meanwhile."""
        answered = False
        while self._views.masses.sum() <= 0.0:
            try:
                self._refresh_views(deadline)
            except ReplayTimeout:
                if answered:
                    raise self._nothing_to_sample() from None
                raise
            answered = True
            remaining = deadline - self._clock.now()
            if self._views.masses.sum() <= 0.0:
                if remaining <= 0.0:
                    raise self._nothing_to_sample()
                self._clock.sleep(min(remaining, _POLL_S))

    def _nothing_to_sample(self) -> ReplayTimeout:
        if self._views.open.any():
            return ReplayTimeout("nothing to sample: every record has priority zero", "inserts")
        held = ", ".join(
            f"shard {port.hello.shard} holds {size} of {port.hello.min_size}"
            for port, size in zip(self._ports, self._views.sizes, strict=True)
        )
        return ReplayTimeout(f"too few records to sample yet: {held}", "min_size")

    def _refresh_views(self, deadline: float) -> None:
        """Ask every shard what it holds; answers that do not come in time are read at the next call."""
        if not self._asking:
            nothing = SampleRequest(np.zeros(0, np.int64), 0.0, Updates(), 0.0)
            self._asking = [(position, port.sample(nothing)) for position, port in enumerate(self._ports)]
        while self._asking:
            position, call = self._asking[0]
            try:
                reply = call.result(deadline - self._clock.now())
            except ReplayTimeout:
                raise
            except HeadraceError:
                self._asking.clear()
                raise
            self._views.see(position, reply.view)
            del self._asking[0]

    def _take_updates(self, position: int) -> Updates:
        """Queued updates of one shard, as many as one request carries."""
        queue, rows = self._queued[position], 0
        taken: list[Updates] = []
        while queue and (not taken or rows + len(queue[0]) <= _MOST_UPDATES):
            taken.append(queue.pop(0))
            rows += len(taken[-1])
        if len(taken) <= 1:
            return taken[0] if taken else Updates()
        return Updates(np.concatenate([u.keys for u in taken]), np.concatenate([u.priorities for u in taken]))

    def _count(self, report: UpdateReport) -> None:
        self._applied += report.applied
        self._stale += report.stale

    def _drop_rounds(self, deadline: float) -> list[Call[UpdateReply]]:
        """Forget prefetched batches; those already drawn are given back to the limiters."""
        calls: list[Call[UpdateReply]] = []
        for dropped in self._rounds:
            with contextlib.suppress(HeadraceError):  # lost, or still without an answer: nothing to give back
                calls += dropped.abandon(deadline, self._jitter)
            self._count(dropped.take_report())
            dropped.forget()
        self._rounds.clear()
        return calls


def check_same_spec(ours: RecordSpec, theirs: RecordSpec, address: str) -> None:
    """Raises SchemaMismatch naming the fields and semantics that differ."""
    if ours == theirs:
        return
    differences = []
    a, b = ({f.name: f for f in spec.fields} for spec in (ours, theirs))
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            texts = [f"{f.dtype}{list(f.shape)}" if f else "missing" for f in (a.get(name), b.get(name))]
            differences.append(f"field {name!r} is {texts[0]} here, {texts[1]} there")
    for name in sorted(ours.semantics.keys() | theirs.semantics.keys()):
        mine, other = ours.semantics.get(name), theirs.semantics.get(name)
        if mine != other:
            differences.append(f"semantics {name!r} is {mine!r} here, {other!r} there")
    raise SchemaMismatch(f"shard at {address} holds other records: {'; '.join(differences) or 'fields in other order'}")


def _rendezvous(writer_id: int, shard: int) -> bytes:
    return hashlib.sha256(writer_id.to_bytes(8, "little") + shard.to_bytes(4, "little")).digest()


def _updates_to_json(updates: Updates) -> list[str]:
    return [base64.b64encode(array.tobytes()).decode() for array in (updates.keys, updates.priorities)]


def _updates_from_json(texts: list[str]) -> Updates:
    keys, priorities = (base64.b64decode(text) for text in texts)
    return Updates(np.frombuffer(keys, KEY_DTYPE), np.frombuffer(priorities, np.float64))
