"""Makes the shard a config describes: sums its memory up, gives it a life of its own, restores or recovers it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from replay_server.capture import working_bytes
from replay_server.errors import ConfigError
from replay_server.incarnation import next_incarnation
from replay_server.journal import Journal, Recovered
from replay_server.logged import read_records
from replay_server.memory import MemoryBudget, memory_limit
from replay_server.occupancy import Occupancy
from replay_server.server import WAITERS, message_bytes
from replay_server.shard import Shard
from replay_server.shard_config import ShardConfig
from replay_server.table import Table

_SAMPLE = 1 << 14
"""Slots of the small table by which a large one is judged: their memory grows in proportion."""


@dataclass(frozen=True)
class MadeShard:
    """A shard that is ready to be served.

    Attributes:
        shard: with everything its journal or checkpoint gave back.
        budget: its memory when full.
        recovery: what came back from the journal and how long that took, for the line that says so; "" without one.
    """

    shard: Shard
    budget: MemoryBudget
    recovery: str = ""


def make_shard(config: ShardConfig, *, salvage: bool = False) -> MadeShard:
    """The shard of a config, not served yet.

    Raises:
        ConfigError: it would not fit into memory, or its directory is in use.
        CheckpointError, JournalError: what it is to start from is damaged or of another kind.
        StorageFull: its directory cannot be written to.
    """
    budget = memory_budget(config)
    budget.check(memory_limit())
    if config.durability == "checkpoint" or config.directory is None:
        _refuse_to_forget(config)
        shard = _shard(config, secrets.randbits(32), None)
        _restore(shard, config)
        _preload(shard, config)
        return MadeShard(shard, budget)
    spec = config.spec.to_spec()
    journal = Journal.open(
        config.directory, spec, config.shard_index, config.capacity, config.durability, salvage=salvage
    )
    try:
        begin = time.monotonic()
        shard = _shard(config, next_incarnation(config.directory), journal)
        recovered = shard.recover()
        _restore(shard, config)
        if config.init_from:
            _preload(shard, config)
            shard.journal_preloaded()
    except BaseException:
        journal.close()
        raise
    return MadeShard(shard, budget, _told(recovered, config.directory, time.monotonic() - begin))


def _restore(shard: Shard, config: ShardConfig) -> None:
    match config.restore_from:
        case None:
            return
        case str() as path:
            shard.restore(path)
        case paths:
            shard.restore_share(paths, part=config.shard_index, parts=config.init_shards)


def _preload(shard: Shard, config: ShardConfig) -> None:
    part, parts = config.shard_index, config.init_shards
    for records in read_records(config.init_from, config.spec.to_spec(), part=part, parts=parts):
        shard.preload(records)


def _refuse_to_forget(config: ShardConfig) -> None:
    """Raises ConfigError where a shard without a journal would start empty beside the journal of one that had it."""
    if config.directory is not None and any(Path(config.directory, "journal").glob("*.log")):
        raise ConfigError(
            f"durability: {config.directory} holds the journal of a durable shard, which checkpoint would start "
            "without; use journal or fsync, or another directory"
        )


def memory_budget(config: ShardConfig) -> MemoryBudget:
    """What the shard will hold when full, found without allocating it."""
    spec = config.spec.to_spec()
    slots = min(config.capacity, _SAMPLE)
    journal = 0 if config.durability == "checkpoint" else Occupancy(slots).nbytes
    return MemoryBudget(
        capacity=config.capacity,
        record_size=spec.record_size,
        table=-(-_table(config, slots, 0).overhead_bytes * config.capacity // slots),
        snapshot=working_bytes(config.capacity, spec.record_size),
        journal=journal * config.capacity // slots,
        messages=message_bytes(spec),
    )


def _shard(config: ShardConfig, incarnation: int, journal: Journal | None) -> Shard:
    table = _table(config, config.capacity, incarnation)
    return Shard(table, config.rate_limiter.to_limiter(), journal=journal, max_waiters=WAITERS)


def _table(config: ShardConfig, capacity: int, incarnation: int) -> Table:
    return Table(
        config.spec.to_spec(),
        capacity,
        priority_exponent=config.priority_exponent,
        sampler=config.sampler,
        remover=config.remover,
        max_times_sampled=config.max_times_sampled,
        seed=config.seed,
        shard=config.shard_index,
        incarnation=incarnation,
    )


def _told(recovered: Recovered, directory: str, seconds: float) -> str:
    text = f"; recovered {recovered.records:,} records from {directory} in {seconds:.1f} s"
    if recovered.truncated_bytes:
        text += f", cut off {recovered.truncated_bytes:,} bytes of an unfinished write"
    if recovered.damaged:
        text += (
            f", left out {recovered.skipped_bytes:,} damaged bytes ({recovered.skipped_entries:,} entries are known to "
            f"be missing) of {', '.join(recovered.damaged)}"
        )
    return text
