"""A shard in a simulation: the real one, fed frames by the network, that dies and comes back from its disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fault.records import SPEC, check_bodies
from fault.simulated_disk import Crashed, SimulatedDisk
from fault.simulated_network import Network, Respond
from fault.simulated_time import Scheduler
from replay_server import RateLimiter, wire
from replay_server.documents import hello_document
from replay_server.errors import HeadraceError
from replay_server.frames import Layout
from replay_server.journal import Journal
from replay_server.messages import Hello, InsertReply, InsertRequest, SampleReply, SampleRequest, Stamp, Updates
from replay_server.shard import Shard
from replay_server.table import Table

_LAYOUT = Layout(SPEC)


@dataclass(frozen=True)
class ShardSettings:
    """What a simulated shard is; as of `Table`, `RateLimiter` and the journal."""

    index: int
    capacity: int
    limiter: RateLimiter
    level: str
    sampler: str
    remover: str
    max_times_sampled: int | None


@dataclass(eq=False)
class _Waiting:
    """A call the limiter holds back; `attempt` answers it and says so, or leaves it."""

    attempt: Callable[[bool], bool]


class _LifeClock:
    """The scheduler's, until the life it belongs to is over: whatever still sleeps then is gone."""

    def __init__(self, scheduler: Scheduler, rng: np.random.Generator) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self.ended = self.compacting = False

    def now(self) -> float:
        return self._scheduler.now()

    def sleep(self, seconds: float) -> None:
        """A snapshot rests in proportion to the processor time it took, which no seed decides; here it takes any."""
        self._scheduler.sleep(float(self._rng.exponential(0.1)))
        if self.ended:
            raise Crashed


class SimulatedShard:
    """Implements `FrameServer`.

    Waits inside the shard are played here: a call is tried with no wait, and again after everything that may have
    freed it, until its time is up. The threads of a real shard do the same.
    """

    def __init__(self, settings: ShardSettings, network: Network, rng: np.random.Generator, place: Path) -> None:
        self._place = place
        self.settings = settings
        self.network = network
        self.disk = SimulatedDisk(rng)
        self.lives = 0
        self.operations = 0
        self.stopped = False
        self.shard: Shard
        self._rng = rng
        self._epochs: dict[int, int] = {}
        self._draws: Counter[int] = Counter()  # in this life
        self._all_draws: Counter[int] = Counter()
        self.gone: set[int] = set()
        """Records drawn as often as they may be in one life: they have left the table."""
        self.perhaps_gone: set[int] = set()
        """Drawn so often in all lives: a snapshot may have carried the count from one to the next."""
        self.removals_may_be_lost = settings.level == "fsync"
        self._scheduler: Scheduler = network.scheduler
        self._waiting: list[_Waiting] = []
        self._held: list[tuple[str, bytes, Respond]] = []
        self.boot()

    @property
    def hello(self) -> Hello:
        table = self.shard.table
        return Hello(
            address=f"simulated-{table.shard}",
            shard=table.shard,
            incarnation=table.incarnation,
            capacity=table.capacity,
            min_size=self.shard.limiter.min_size,
            max_message_bytes=wire.MAX_REPLY_BYTES,
            spec=SPEC,
            durability=self.settings.level,
            consuming=table.consuming,
            max_request_bytes=wire.max_request_bytes(SPEC),
        )

    def boot(self) -> None:
        """A new life, from what is on the disk."""
        settings, self.lives = self.settings, self.lives + 1
        self._draws.clear()
        table = Table(
            SPEC,
            settings.capacity,
            sampler=settings.sampler,
            remover=settings.remover,
            max_times_sampled=settings.max_times_sampled,
            seed=self.lives,
            shard=settings.index,
            incarnation=self.lives,
        )
        clock = _LifeClock(self._scheduler, self._rng)
        if settings.level == "checkpoint":
            self.shard = Shard(table, settings.limiter, clock=clock)
        else:
            self.shard = Shard(table, settings.limiter, journal=self._open_journal(), clock=clock)
            self.shard.recover()
        self._clock = clock
        self.shard.check_valid()
        self.network.server, self.network.up = self, True

    def _open_journal(self) -> Journal:
        place, settings = str(self._place / str(self.settings.index)), self.settings
        return Journal.open(
            place, SPEC, settings.index, settings.capacity, settings.level, disk=self.disk, segment_bytes=1500
        )

    @property
    def alive(self) -> bool:
        return self.network.server is self

    def crash(self, power: bool) -> None:
        """The process is gone; with `power` also what the disk had not synced."""
        self.network.died()
        self._clock.ended = True
        self._waiting.clear()
        self._held.clear()
        self.stopped = False
        self.disk.crash(power)
        self.shard.close()  # its threads; the disk no longer knows its handles

    def compact(self) -> None:
        """A snapshot for the journal to build on, while everything goes on; for a task of its own."""
        clock = self._clock
        if clock.compacting or not self.alive:
            return
        clock.compacting = True
        try:
            self.shard.compact()
        except HeadraceError:
            pass  # the disk is full
        except Crashed:
            if self.alive and self.disk.crashed:
                self.crash(power=False)
        finally:
            clock.compacting = False

    def resume(self) -> None:
        """After `stopped`: everything that came meanwhile is handled now."""
        self.stopped = False
        held, self._held = self._held, []
        for method, frame, respond in held:
            if self.network.server is self:
                self.receive(method, frame, respond)

    def stored(self) -> NDArray[np.int64]:
        """Ids of all records."""
        table = self.shard.table
        columns = SPEC.columns(table.records[table.slots.holding()])
        check_bodies(columns)
        ids: NDArray[np.int64] = columns["id"].copy()
        return ids

    def receive(self, method: str, frame: bytes, respond: Respond) -> None:
        if self.stopped:
            self._held.append((method, frame, respond))
            return
        try:
            self._handle(method, frame, respond)
            self._try_waiting()
        except Crashed:
            pass
        if self.disk.crashed:
            self.crash(power=False)
            return
        self.operations += 1
        if self._rng.random() < 0.05:
            self.shard.check_valid()

    def _handle(self, method: str, frame: bytes, respond: Respond) -> None:
        try:
            if method == "Insert":
                self._insert(wire.decode_insert(frame, _LAYOUT), respond)
            elif method == "Sample":
                self._sample(wire.decode_sample(frame, _LAYOUT), respond)
            elif method == "Update":
                respond(wire.encode_update_reply(self.shard.update(wire.decode_update(frame, _LAYOUT)), _LAYOUT))
            elif method == "Hello":
                respond(wire.encode_json(hello_document(self.hello), reply=True))
            else:
                respond(wire.encode_json(asdict(self.shard.stats()), reply=True))
        except HeadraceError as error:
            self._refuse(respond, error)

    def _refuse(self, respond: Respond, error: HeadraceError) -> None:
        if self.disk.crashed:
            raise Crashed  # the journal's own thread met it
        respond(_travelled(error))

    def _insert(self, request: InsertRequest, respond: Respond) -> None:
        def attempt() -> InsertReply:
            before = self.shard.stats()
            reply = self.shard.insert(replace(request, wait_s=0.0))
            if self.disk.crashed:
                raise Crashed
            self._check_fence(request.stamp, reply)
            if reply.accepted:
                blocks = self.shard.limiter.blocks_insert(before.size, before.inserted, before.sampled, reply.accepted)
                assert blocks is None, f"an insert went past the rate limiter, which said {blocks}"
            return reply

        self._until_free(
            attempt, request.wait_s, lambda reply: respond(wire.encode_insert_reply(reply, _LAYOUT)), respond
        )

    def _check_fence(self, stamp: Stamp | None, reply: InsertReply) -> None:
        """Once a shard has answered an epoch, whatever the answer, nothing of an older one is taken, in any life."""
        assert stamp is not None
        if reply.accepted:
            newest = self._epochs.get(stamp.writer_id, 0)
            assert stamp.epoch >= newest, f"epoch {stamp.epoch} wrote after epoch {newest} of writer {stamp.writer_id}"
        if reply.blocked_on is None or self.settings.level == "journal":  # else a power loss may undo the opening
            self._epochs[stamp.writer_id] = max(stamp.epoch, self._epochs.get(stamp.writer_id, 0))

    def _count_draws(self, ids: list[int]) -> None:
        """A record that was removed by being drawn is never seen again, in any life."""
        most = self.settings.max_times_sampled
        if most is None:
            return
        back = self.gone.intersection(ids)
        assert not back or self.removals_may_be_lost, f"records {sorted(back)[:5]} were drawn after they were removed"
        self._draws.update(ids)
        self._all_draws.update(ids)
        self.gone.update(i for i in ids if self._draws[i] >= most)
        self.perhaps_gone.update(i for i in ids if self._all_draws[i] >= most)

    def _sample(self, request: SampleRequest, respond: Respond) -> None:
        updates, applied, stale = request.updates, 0, 0

        def attempt() -> SampleReply:
            nonlocal updates, applied, stale
            before = self.shard.stats()
            reply = self.shard.sample(replace(request, wait_s=0.0, updates=updates))
            applied, stale, updates = applied + reply.applied, stale + reply.stale, Updates()
            if len(reply.records) and request.credit > 0.0:
                blocks = self.shard.limiter.blocks_sample(
                    before.size, before.inserted, before.sampled, len(reply.records)
                )
                assert blocks is None, f"a sample went past the rate limiter, which said {blocks}"
            columns = SPEC.columns(reply.records)
            check_bodies(columns)
            if self.disk.crashed:
                raise Crashed
            self._count_draws(columns["id"].tolist())
            return replace(reply, applied=applied, stale=stale)

        self._until_free(
            attempt, request.wait_s, lambda reply: respond(wire.encode_sample_reply(reply, _LAYOUT)), respond
        )

    def _until_free(self, attempt, wait_s, answer, refuse) -> None:  # type: ignore[no-untyped-def]
        """Try now and whenever something changed; answer with the reason when the time is up."""

        def once(last: bool) -> bool:
            try:
                reply = attempt()
            except HeadraceError as error:
                self._refuse(refuse, error)
                return True
            if reply.blocked_on is not None and not last:
                return False
            answer(reply)
            return True

        if once(wait_s <= 0.0):
            return
        waiting = _Waiting(once)
        self._waiting.append(waiting)

        def give_up() -> None:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                try:
                    once(True)
                except Crashed:
                    self.crash(power=False)

        self._scheduler.at(wait_s, give_up)

    def _try_waiting(self) -> None:
        """Oldest first, until nobody gets on."""
        moved = True
        while moved:
            moved = False
            for waiting in list(self._waiting):
                if waiting in self._waiting and waiting.attempt(False):
                    self._waiting.remove(waiting)
                    moved = True


def _travelled(error: HeadraceError) -> HeadraceError:
    """As it arrives at the other side."""
    known = wire.decode_error(wire.encode_error(error))
    assert known is not None
    return known
