"""The model of a run: actors, shards, learner, weight store and driver in simulated time.

Actors are closed loops: a vector step, a chunk to their shard with one under way, a report to the driver every
0.2 s. The learner keeps rounds of batches under way, updates, and publishes. Everything that computes takes its share
of its node's processors; what one Python process does, it does one thing at a time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from distributed.scaling.events import Gate, Lane, Shared, Simulation, Steps, Stopwatch, together
from distributed.scaling.parts import Insert, Node, Shard, Store
from distributed.scaling.system import ServiceTimes, System

_SLICE_S = 0.2
_TURN_S = 0.1  # the longest an actor waits for its shard before it looks whether its slice is over
_UNEVEN = 0.2  # a vector step takes up to so much more or less, so that actors do not march in step
_FEW_EVENTS, _EVENTS_EACH, _MOST_EVENTS = 400_000, 10_000, 16_000_000  # of a simulation: and for each actor; at most
_SAME = 0.1  # what two halves of the time counted may differ by, as a share
_SAME_VERSIONS = 0.5
_LEAST = 25  # updates, and chunks, in each of them
_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0
_ROUND_BYTES = 16 << 20
_OUTRUN = 0.02


class Outcome(Struct, frozen=True):
    """What a simulated run did, a second; shares are of the time.

    Attributes:
        actors_blocked: mean share in which an actor waited for its shard.
        learner_waiting: share in which the learner waited for samples.
        staleness: mean versions an actor is behind, when it reports; None where that had not settled: blocked actors
            keep the weights they had, so it may grow until each of them has had its turn.
        sampled_per_insert: records sampled over records inserted.
        busy: of `learner`, `actors`, `shards`, `driver`, `store` the share of a mean one that is at work or waits
            for a processor; of
            `processors` the share of the head's that is used, of `network` that of the busiest node's card.
        simulated_s: how long was counted, after half as long at least for warming up.
        settled: the two halves of that time agree in what they did; the figures of a run that has not settled mean
            nothing but what is used most.
    """

    env_steps_per_second: float
    updates_per_second: float
    actors_blocked: float
    learner_waiting: float
    staleness: float | None
    sampled_per_insert: float
    busy: dict[str, float]
    simulated_s: float
    settled: bool = True


def simulate(system: System, times: ServiceTimes, seconds: float, seed: int = 0) -> Outcome:
    """The steady state of a run; the same arguments give the same outcome, bit for bit.

    The law of samples per insert lets one side run ahead, with many actors for minutes. So the simulation begins with
    actors as far ahead as they may be; where the learner catches up with them, it begins again with the learner ahead.

    Args:
        seconds: to simulate, after half as long for warming up; four turns of the driver and of an actor at least.
            Where nothing has settled by then, all of it was warming up, and twice as long counts, again and again; a
            system that would take minutes to settle is left as it is, `settled` being False.
    """
    slowest_s = max(_SLICE_S, system.actors * (times.driver_look_s + times.driver_report_s), times.vector_step_s)
    seconds = max(seconds, 4.0 * slowest_s)
    outcome = _Run(system, times, seed, ahead=True).measure(seconds)
    ratio = system.limiter.samples_per_insert
    if ratio is not None and outcome.settled and _outruns(outcome, system, ratio):
        outcome = _Run(system, times, seed, ahead=False).measure(seconds)
    return outcome


def _outruns(outcome: Outcome, system: System, ratio: float) -> bool:
    """Whether the learner catches up with the actors: by more than the chunks under way, which are the grain of all."""
    inserted = outcome.env_steps_per_second * outcome.simulated_s
    catches_up = (outcome.sampled_per_insert - ratio) * inserted
    return catches_up > ratio * max(_OUTRUN * inserted, 2.0 * system.chunk * system.shards)


@dataclass(eq=False)
class _Actor:
    node: Node
    shard: Shard
    blocked: Stopwatch
    idle: Stopwatch
    version: int = 0
    arrived: int = 0
    sent: int = 0
    under_way: bool = False
    sent_back: bool = False
    turned_away: int = 0
    lag: float = 0.0
    reports: int = 0


class _Counts(Struct, frozen=True):
    """Sums at one moment; an outcome is what lies between two."""

    now: float
    updates: float
    blocked: float
    idle: float
    waiting: float
    learner_idle: float
    inserted: float
    sampled: float
    shards: float
    driver: float
    store: float
    lag: float
    reports: float
    head: float
    cards: tuple[float, ...]


class _Run:
    """One simulation."""

    def __init__(self, system: System, times: ServiceTimes, seed: int, *, ahead: bool) -> None:
        self._system, self._times, self._machines = system, times, system.machines
        self._rng = np.random.default_rng(seed)
        clock = self._clock = Simulation()
        self._make_nodes()
        self._shards = [Shard(clock, self._shard_node(index), system, times, ahead) for index in range(system.shards)]
        self._store = Store(clock, self._head, times)
        self._driver = Lane(clock)
        self._answers: deque[Gate] = deque()
        self._answered = Gate(clock)
        self._waiting, self._learner_idle = Stopwatch(clock), Stopwatch(clock)
        self._updates = self._published = 0
        self._actors = [
            _Actor(self._actor_node(index), self._shards[index % system.shards], Stopwatch(clock), Stopwatch(clock))
            for index in range(system.actors)
        ]
        clock.start(self._drive())
        clock.start(self._learn())
        for actor in self._actors:
            clock.start(self._act(actor))
            clock.start(self._pull(actor))

    def measure(self, seconds: float) -> Outcome:
        """Warm up, then count; twice as long each time, until two halves of it agree."""
        most = min(_FEW_EVENTS + _EVENTS_EACH * self._system.actors, _MOST_EVENTS)
        clock = self._clock
        clock.run(seconds / 2, most)
        while True:
            before, begin = clock.events, self._counts()
            clock.run(begin.now + seconds / 2, most - clock.events)
            middle = self._counts()
            clock.run(begin.now + seconds, most - clock.events)
            end = self._counts()
            first, second = self._outcome(begin, middle), self._outcome(middle, end)
            settled = clock.events < most and self._enough(begin, middle, end) and _same(first, second)
            if settled or clock.events + 2 * (clock.events - before) >= most:
                outcome = replace(self._outcome(begin, end), settled=settled)
                return outcome if _same_age(first, second) else replace(outcome, staleness=None)
            seconds *= 2.0

    def _enough(self, *marks: _Counts) -> bool:
        least = _LEAST * self._system.chunk
        return all(b.updates - a.updates >= _LEAST and b.inserted - a.inserted >= least for a, b in pairwise(marks))

    def _make_nodes(self) -> None:
        machines, count = self._machines, self._system.nodes
        one = machines.one
        self._head = self._node(machines.head_cores)
        self._actor_nodes = [self._node(machines.actor_cores) for _ in range(count.get("actor", 0))]
        self._shard_nodes = [self._node(machines.shard_cores) for _ in range(count.get("shard", 0))]
        self._latency = 0.0 if one else machines.latency_s
        self._nodes = [self._head, *self._actor_nodes, *self._shard_nodes]

    def _node(self, cores: float) -> Node:
        card = None if self._machines.one else Shared(self._clock, *[self._machines.bytes_per_s] * 2)
        return Node(Shared(self._clock, float(cores), min(float(cores), 1.0)), card)

    def _actor_node(self, index: int) -> Node:
        return self._head if self._machines.one else self._actor_nodes[index // self._machines.actor_cores]

    def _shard_node(self, index: int) -> Node:
        return self._head if self._machines.one else self._shard_nodes[index // self._machines.shards_per_node]

    def _act(self, actor: _Actor) -> Steps:
        system, times, clock, cores = self._system, self._times, self._clock, actor.node.cores
        acknowledged, outbox = Gate(clock), 0
        spread = max(_SLICE_S, system.actors * times.driver_report_s, times.vector_step_s)
        yield float(self._rng.uniform(0.0, spread))
        while True:
            deadline = clock.now + _SLICE_S
            while clock.now < deadline:
                if outbox < system.records_per_insert:
                    if actor.arrived > actor.version:
                        yield cores.work(times.load_s)
                        actor.version = actor.arrived
                    yield cores.work(times.vector_step_s * float(self._rng.uniform(1.0 - _UNEVEN, 1.0 + _UNEVEN)))
                    outbox += system.num_envs
                    continue
                if actor.under_way:
                    actor.blocked.start()
                    yield from self._wait(actor, acknowledged)
                    actor.blocked.stop()
                    continue
                yield cores.work(times.insert_client.of(outbox))
                actor.under_way = True
                actor.sent, outbox = outbox, 0
                clock.start(self._deliver(actor, acknowledged))
            actor.lag += self._published - actor.version
            actor.reports += 1
            actor.idle.start()
            yield from self._report()
            actor.idle.stop()

    def _wait(self, actor: _Actor, acknowledged: Gate) -> Steps:
        """For the chunk under way; one that was sent back is sent again after a pause."""
        if not actor.sent_back:
            yield acknowledged.within(_TURN_S)
        if actor.sent_back:
            longest = min(_BACKOFF_S * 2.0 ** min(max(actor.turned_away - 1, 0), 16), _LONGEST_BACKOFF_S)
            yield float(self._rng.uniform(0.2, 1.0)) * longest
            actor.sent_back = False
            self._clock.start(self._deliver(actor, acknowledged))

    def _deliver(self, actor: _Actor, acknowledged: Gate) -> Steps:
        size = actor.sent * self._times.record_bytes
        yield from actor.node.transfer(size, self._latency)
        yield from actor.shard.node.transfer(size, 0.0)
        chunk = Insert(actor.sent)
        yield from actor.shard.insert(chunk)
        if self._latency:
            yield self._latency
        actor.under_way, actor.sent_back = not chunk.stored, not chunk.stored
        actor.turned_away = 0 if chunk.stored else actor.turned_away + chunk.turned_away
        acknowledged.open_all()

    def _pull(self, actor: _Actor) -> Steps:
        while True:
            yield from self._store.fetch(actor.node, actor.arrived, self._latency)
            actor.arrived = self._store.version

    def _report(self) -> Steps:
        """Until the driver has taken the report and said go on."""
        told = Gate(self._clock)
        self._answers.append(told)
        self._answered.open_all()
        yield told

    def _drive(self) -> Steps:
        """The driver looks at every worker whenever one has answered, and sends those who have on."""
        cores, times = self._head.cores, self._times
        while True:
            if not self._answers:
                yield self._answered
            yield self._driver
            yield cores.work(times.driver_look_s * (len(self._actors) + 1))
            for _ in range(len(self._answers)):
                yield cores.work(times.driver_report_s)
                self._answers.popleft().open_all()
            self._driver.leave()

    def _learn(self) -> Steps:
        system, clock = self._system, self._clock
        depth = max(system.prefetch * min(system.shards, 2), 1)
        size = system.batch_size * self._times.record_bytes
        at_once = max(1, min(depth // 2, _ROUND_BYTES // max(size, 1)))
        rounds: deque[_Round] = deque()
        slice_end = clock.now + _SLICE_S
        while True:
            while (len(rounds) + 1) * at_once <= max(depth, at_once):
                rounds.append(_Round(Gate(clock)))
                clock.start(self._sample(rounds[-1], at_once))
            first = rounds.popleft()
            self._waiting.start()
            if not first.done:
                yield first.gate
            self._waiting.stop()
            yield self._head.cores.work(self._times.sample_client.of(0) * system.shards)
            for _ in range(at_once):
                yield from self._update()
                if clock.now >= slice_end:
                    self._learner_idle.start()
                    yield from self._report()
                    self._learner_idle.stop()
                    slice_end = clock.now + _SLICE_S

    def _sample(self, round_: _Round, batches: int) -> Steps:
        """A call to every shard, each for its share of the rows."""
        rows = batches * self._system.batch_size / self._system.shards
        yield from together(self._clock, [self._sample_one(shard, rows) for shard in self._shards])
        round_.done = True
        round_.gate.open_all()

    def _sample_one(self, shard: Shard, rows: float) -> Steps:
        if self._latency:
            yield self._latency
        yield from shard.sample(rows)
        size = rows * self._times.record_bytes
        yield from shard.node.transfer(size, self._latency)
        yield from self._head.transfer(size, 0.0)

    def _update(self) -> Steps:
        system, times, cores = self._system, self._times, self._head.cores
        yield cores.work(times.sample_client.record * system.batch_size)
        for _ in range(system.updates_per_batch):
            yield cores.work(times.update_s)
            if times.together_s:
                yield times.together_s
            self._updates += 1
            if self._updates % system.publish_every_updates == 0:
                yield cores.work(times.snapshot_s)
                self._published += 1
                self._clock.start(self._store.announce())

    def _counts(self) -> _Counts:
        actors, shards = self._actors, self._shards
        return _Counts(
            now=self._clock.now,
            updates=self._updates,
            blocked=sum(actor.blocked.seconds for actor in actors),
            idle=sum(actor.idle.seconds for actor in actors),
            waiting=self._waiting.seconds,
            learner_idle=self._learner_idle.seconds,
            inserted=sum(shard.inserted for shard in shards),
            sampled=sum(shard.sampled for shard in shards),
            shards=sum(shard.lane.busy.seconds for shard in shards),
            driver=self._driver.busy.seconds,
            store=self._store.lane.busy.seconds,
            lag=sum(actor.lag for actor in actors),
            reports=sum(actor.reports for actor in actors),
            head=self._head.cores.done,
            cards=tuple(0.0 if node.card is None else node.card.done for node in self._nodes),
        )

    def _outcome(self, a: _Counts, b: _Counts) -> Outcome:
        seconds, count = max(b.now - a.now, 1e-9), len(self._actors)
        blocked, idle = (b.blocked - a.blocked) / seconds / count, (b.idle - a.idle) / seconds / count
        waiting, learner_idle = (b.waiting - a.waiting) / seconds, (b.learner_idle - a.learner_idle) / seconds
        inserted = b.inserted - a.inserted
        cards = [(y - x) / seconds / self._machines.bytes_per_s for x, y in zip(a.cards, b.cards, strict=True)]
        return Outcome(
            env_steps_per_second=inserted / seconds,
            updates_per_second=(b.updates - a.updates) / seconds,
            actors_blocked=blocked,
            learner_waiting=waiting,
            staleness=(b.lag - a.lag) / max(b.reports - a.reports, 1),
            sampled_per_insert=(b.sampled - a.sampled) / max(inserted, 1.0),
            busy={
                "learner": max(1.0 - waiting - learner_idle, 0.0),
                "actors": max(1.0 - blocked - idle, 0.0),
                "shards": (b.shards - a.shards) / seconds / len(self._shards),
                "driver": (b.driver - a.driver) / seconds,
                "store": (b.store - a.store) / seconds,
                "processors": (b.head - a.head) / seconds / self._machines.head_cores,
                "network": max(cards),
            },
            simulated_s=seconds,
        )


def _same(a: Outcome, b: Outcome) -> bool:
    pairs = (a.updates_per_second, b.updates_per_second), (a.env_steps_per_second, b.env_steps_per_second)
    return all(abs(x - y) <= _SAME * (x + y) / 2 for x, y in pairs)


def _same_age(a: Outcome, b: Outcome) -> bool:
    assert a.staleness is not None and b.staleness is not None
    return abs(a.staleness - b.staleness) <= _SAME * (a.staleness + b.staleness) / 2 + _SAME_VERSIONS


@dataclass
class _Round:
    """Batches under way together."""

    gate: Gate
    done: bool = False
