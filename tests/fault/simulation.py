"""A whole replay in one seed: writers, readers, shards, and everything that can go wrong between and below them.

    python -m fault.simulation SEED [COUNT]

replays one seed, or as many from it on (from the checkout, with PYTHONPATH=.:tests).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fault.history import HistoryInMemory, Verdict, check_history
from fault.noting_writer import NotingWriter
from fault.records import check_bodies
from fault.simulated_disk import Crashed
from fault.simulated_network import Network, SimulatedPort
from fault.simulated_shard import ShardSettings, SimulatedShard
from fault.simulated_time import Scheduler
from replay_server import RateLimiter
from replay_server.client import ReplayClient
from replay_server.errors import HeadraceError, StaleEpoch, StorageFull
from replay_server.messages import Stamp
from replay_server.writer import StreamWriter

_SLACK_S = 0.06
"""A call may end so much after its deadline: one pause between two looks."""


@dataclass(frozen=True)
class Plan:
    """What a seed stands for; drawn by `plan_of`."""

    seed: int
    level: str
    shards: tuple[ShardSettings, ...]
    writers: int
    epochs: int
    readers: int
    turns: int
    troubles: int


@dataclass
class Outcome:
    """What happened in one schedule, summed over schedules by `+=`."""

    schedules: int = 0
    operations: int = 0
    acknowledged: int = 0
    uncertain: int = 0
    surfaced: int = 0
    sampled: int = 0
    crashes: int = 0
    fenced: int = 0
    simulated_s: float = 0.0
    troubles: dict[str, int] = field(default_factory=dict)

    def __iadd__(self, other: Outcome) -> Outcome:
        for name, value in vars(other).items():
            if name != "troubles":
                setattr(self, name, getattr(self, name) + value)
        for name, count in other.troubles.items():
            self.troubles[name] = self.troubles.get(name, 0) + count
        return self


def plan_of(seed: int) -> Plan:
    """Everything random about the setting; what happens in it is drawn as it goes."""
    rng = np.random.default_rng([seed, 1])
    level = str(rng.choice(["checkpoint", "journal", "fsync"]))
    kind = str(rng.choice(["endless", "endless", "consuming", "queue", "lowest"]))
    capacity = 5000 if kind == "lowest" else int(rng.choice([20, 100, 5000]))  # so that nothing is removed unseen
    draws = {"consuming": int(rng.integers(1, 5)), "queue": 1}.get(kind)
    limiter = RateLimiter()
    if kind == "queue":
        limiter = RateLimiter.queue(capacity)
    elif rng.random() < 0.5:
        ratio = float(rng.choice([0.5, 1.0] if draws else [0.5, 2.0, 8.0]))
        limiter = RateLimiter(int(rng.integers(1, 20)), ratio, float(rng.choice([20.0, 100.0])) * max(ratio, 1.0))
    sampler = str(rng.choice(["fifo", "lifo"] if kind == "queue" else ["stratified", "multinomial", "uniform", "fifo"]))
    remover = "lowest_priority" if kind == "lowest" else "fifo"
    shards = tuple(
        ShardSettings(index, capacity, limiter, level, sampler, remover, draws) for index in range(rng.integers(1, 4))
    )
    return Plan(
        seed=seed,
        level=level,
        shards=shards,
        writers=int(rng.integers(1, 4)),
        epochs=int(rng.integers(1, 4)),
        readers=int(rng.integers(1, 3)),
        turns=int(rng.integers(2, 12)),
        troubles=int(rng.integers(0, 8)),
    )


class Simulation:
    """One schedule. `run` raises AssertionError when a promise is broken."""

    def __init__(self, plan: Plan, place: Path) -> None:
        self.plan = plan
        self.outcome = Outcome(schedules=1)
        self._rng = np.random.default_rng([plan.seed, 2])
        self._scheduler = Scheduler(self._rng)
        self._networks = [Network(self._scheduler, self._rng) for _ in plan.shards]
        self._shards = [
            SimulatedShard(s, n, self._rng, place) for s, n in zip(plan.shards, self._networks, strict=True)
        ]
        self._histories = [HistoryInMemory(self._scheduler.now) for _ in plan.shards]
        self._ids_by_key: dict[bytes, int] = {}

    def run(self) -> Outcome:
        begin = self._scheduler.now()
        for writer_id in range(1, self.plan.writers + 1):
            for epoch in range(self.plan.epochs):
                delay = float(self._rng.exponential(0.5)) + epoch * float(self._rng.choice([0.05, 1.0, 20.0]))
                self._scheduler.start(lambda w=writer_id, e=epoch: self._write(w, e), delay)
        for number in range(self.plan.readers):
            self._scheduler.start(lambda n=number: self._read(n))
        self._scheduler.start(self._trouble)
        self._scheduler.run()
        self.outcome.simulated_s = self._scheduler.now() - begin
        self._check()
        return self.outcome

    def _write(self, writer_id: int, epoch: int) -> None:
        try:
            index = writer_id % len(self._shards)
            stream = StreamWriter(
                self._port(index),
                Stamp(writer_id, epoch, 0),
                max_in_flight=int(self._rng.integers(1, 9)),
                gather_rows=int(self._rng.choice([1, 8, 256])),
                clock=self._scheduler,
            )
            timeout_s = float(self._rng.choice([0.3, 5.0, 30.0]))
            first = (writer_id << 40) + (epoch << 32)
            writer = NotingWriter(stream, self._histories[index], first, timeout_s, timeout_s)
            for _ in range(self.plan.turns):
                for _ in range(int(self._rng.integers(1, 5))):
                    self._in_time(timeout_s, writer.append, int(self._rng.integers(1, 9)))
                    if self._rng.random() < 0.3:
                        self._scheduler.sleep(float(self._rng.exponential(0.05)))
                if self._rng.random() < 0.1:
                    return  # killed: what it has under way stays under way
                self._in_time(timeout_s, writer.flush)
        except StaleEpoch:
            return

    def _read(self, number: int) -> None:
        prefetch = int(self._rng.choice([0, 2, 6]))
        ports = [self._port(index) for index in range(len(self._shards))]
        replay = ReplayClient(ports, prefetch=prefetch, seed=number, clock=self._scheduler)
        for _ in range(2 * self.plan.turns):
            timeout_s = float(self._rng.choice([0.1, 1.0, 5.0]))
            try:
                rows = int(self._rng.integers(1, 17))
                batch = self._in_time(timeout_s, replay.sample, rows, timeout_s=timeout_s)
                check_bodies(batch.columns)
                assert ((batch.probabilities > 0.0) & (batch.probabilities <= 1.0)).all()
                for key, record in zip(batch.keys, batch.columns["id"].tolist(), strict=True):
                    known = self._ids_by_key.setdefault(key.tobytes(), record)
                    assert known == record, f"key {key} named record {known}, now {record}"
                self.outcome.sampled += len(batch)
                replay.update_priorities(batch.keys, self._rng.uniform(0.0, 2.0, len(batch)))
                if self._rng.random() < 0.2:
                    self._in_time(timeout_s, replay.flush, timeout_s=timeout_s)
            except HeadraceError:
                self._scheduler.sleep(0.05)
            self._scheduler.sleep(float(self._rng.exponential(0.3)))
        self._in_time(2.0 + len(ports), replay.close)

    def _trouble(self) -> None:
        """One thing after another goes wrong, sometimes two at once, and heals."""
        troubles = [self._delay, self._loss, self._one_way, self._other_way, self._partition, self._stop]
        if self.plan.level != "checkpoint":
            troubles += [self._kill, self._kill, self._crash_inside, self._full_disk, self._short_writes, self._compact]
            if self.plan.shards[0].max_times_sampled is not None:
                troubles += [self._compact] * 6
        if self.plan.level == "fsync":
            troubles += [self._power_loss, self._power_loss]
        for _ in range(self.plan.troubles):
            self._scheduler.sleep(float(self._rng.exponential(0.5)))
            index = int(self._rng.integers(len(self._shards)))
            trouble = troubles[int(self._rng.integers(len(troubles)))]
            name = trouble.__name__.lstrip("_")
            self.outcome.troubles[name] = self.outcome.troubles.get(name, 0) + 1
            heal = trouble(index)
            self._scheduler.at(float(self._rng.choice([0.01, 0.3, 3.0, 15.0])), heal)

    def _delay(self, index: int) -> Callable[[], None]:
        return self._set(self._networks[index], "delay_s", float(self._rng.choice([0.0, 0.05, 0.5])))

    def _loss(self, index: int) -> Callable[[], None]:
        self._networks[index].twice = 0.2
        return self._set(self._networks[index], "loss", 0.2)

    def _one_way(self, index: int) -> Callable[[], None]:
        return self._set(self._networks[index], "to_shard", False)

    def _other_way(self, index: int) -> Callable[[], None]:
        return self._set(self._networks[index], "to_client", False)

    def _partition(self, index: int) -> Callable[[], None]:
        heals = [self._one_way(index), self._other_way(index)]
        return lambda: [heal() for heal in heals] and None

    def _stop(self, index: int) -> Callable[[], None]:
        self._shards[index].stopped = True
        return self._shards[index].resume

    def _kill(self, index: int) -> Callable[[], None]:
        if self._shards[index].alive:
            self._shards[index].crash(power=False)
        return lambda: self._restart(index)

    def _power_loss(self, index: int) -> Callable[[], None]:
        if self._shards[index].alive:
            self._shards[index].crash(power=True)
        return lambda: self._restart(index)

    def _crash_inside(self, index: int) -> Callable[[], None]:
        """At one of its next writes, in the middle."""
        self._shards[index].disk.crash_in = int(self._rng.integers(0, 30))
        return lambda: self._restart(index)

    def _full_disk(self, index: int) -> Callable[[], None]:
        disk = self._shards[index].disk
        self._shards[index].removals_may_be_lost = True  # if it is killed before there is room to write them down
        disk.room = disk.used + int(self._rng.integers(0, 3000))

        def heal() -> None:
            disk.room = None

        return heal

    def _short_writes(self, index: int) -> Callable[[], None]:
        disk = self._shards[index].disk
        disk.short_writes = 0.5

        def heal() -> None:
            disk.short_writes = 0.0

        return heal

    def _compact(self, index: int) -> Callable[[], None]:
        self._scheduler.start(self._shards[index].compact)
        return lambda: None

    def _restart(self, index: int) -> None:
        """Start a shard that is down, as often as it takes: it may die again while it reads, or find its disk full."""
        shard = self._shards[index]
        if shard.alive:
            return
        self.outcome.crashes += 1
        try:
            shard.boot()
        except Crashed:
            shard.disk.crash(power=False)
            self._scheduler.at(0.1, lambda: self._restart(index))
        except StorageFull:
            self._scheduler.at(0.1, lambda: self._restart(index))

    def _set(self, target: Any, name: str, value: Any) -> Callable[[], None]:
        default = getattr(Network(self._scheduler, self._rng), name)
        setattr(target, name, value)
        return lambda: setattr(target, name, default)

    def _port(self, index: int) -> SimulatedPort:
        return SimulatedPort(self._shards[index].hello, self._networks[index])

    def _in_time(self, limit_s: float, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Run a call of the client and see that it does not outstay its deadline."""
        begin = self._scheduler.now()
        try:
            return call(*arguments, **named)
        finally:
            took = self._scheduler.now() - begin
            assert took <= limit_s + _SLACK_S, f"a call with a deadline of {limit_s} s took {took:.3f} s"

    def _check(self) -> None:
        for index, (shard, history) in enumerate(zip(self._shards, self._histories, strict=True)):
            shard.disk.room, shard.disk.crash_in = None, None
            fenced = shard.shard.stats().fenced
            if self.plan.level != "checkpoint":
                if shard.alive:
                    shard.crash(power=self.plan.level == "fsync")
                self._restart(index)
            shard.shard.check_valid()
            gone, removed = (np.array(sorted(ids), np.int64) for ids in (shard.gone, shard.perhaps_gone))
            stored = shard.stored()
            back = np.intersect1d(stored, gone)
            assert shard.removals_may_be_lost or not len(back), f"records {back[:5]} are back after they were removed"
            verdict: Verdict = check_history(history.calls, stored, shard.settings.capacity, removed)
            assert verdict.valid, f"shard {shard.settings.index}: {verdict}"
            self.outcome.acknowledged += verdict.acknowledged
            self.outcome.uncertain += verdict.uncertain
            self.outcome.surfaced += verdict.surfaced
            self.outcome.operations += shard.operations
            self.outcome.fenced += fenced


def run_seeds(first: int, count: int, seconds: float = float("inf")) -> Outcome:
    """Run schedules until one fails, all are done, or the time is up.

    Raises:
        AssertionError: with the seed and the command that replays it.
    """
    total, begin = Outcome(), time.monotonic()
    for seed in range(first, first + count):
        if time.monotonic() - begin > seconds:
            break
        plan = plan_of(seed)
        try:
            with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
                total += Simulation(plan, Path(place)).run()
        except Exception as error:
            raise AssertionError(
                f"seed {seed} fails: {type(error).__name__}: {error}\n  {plan}\n"
                f"  replay it: PYTHONPATH=.:tests python -m fault.simulation {seed}"
            ) from error
    return total


if __name__ == "__main__":
    print(run_seeds(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
