"""The configuration of a stand-alone shard."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from replay_server.rate_limiter import RateLimiter
from replay_server.security import ServerTLS
from replay_server.specs import Field, RecordSpec


class FieldConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of the records."""

    name: Annotated[str, Meta(description="Column name, an identifier.")]
    dtype: Annotated[str, Meta(description="numpy dtype of a number or bool, for example float32.")]
    shape: Annotated[tuple[int, ...], Meta(description="Shape of one record's value; [] for a single number.")] = ()


class SpecConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Layout of the records and what their numbers mean."""

    fields: Annotated[tuple[FieldConfig, ...], Meta(min_length=1, description="The columns, in order.")]
    semantics: Annotated[
        dict[str, str], Meta(description="What the numbers mean, as text; clients of other semantics are refused.")
    ] = {}

    @classmethod
    def of(cls, spec: RecordSpec) -> SpecConfig:
        fields = tuple(FieldConfig(name=f.name, dtype=str(f.dtype), shape=f.shape) for f in spec.fields)
        return cls(fields=fields, semantics=dict(spec.semantics))

    def to_spec(self) -> RecordSpec:
        """Raises SchemaMismatch naming the field that cannot be."""
        return RecordSpec(tuple(Field(f.name, f.dtype, f.shape) for f in self.fields), self.semantics)


class RateLimiterConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may go on; see `replay_server.rate_limiter`."""

    min_size: Annotated[int, Meta(ge=1, description="Records the shard must hold before it is sampled.")] = 1
    samples_per_insert: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="How often a record is sampled on average; null for no limit."),
    ] = None
    error_buffer: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Samples the two sides may run apart; null: a tenth of samples_per_insert * min_size."),
    ] = None
    queue_size: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Records that may wait to be sampled, once each, in place of all above; null: no queue."),
    ] = None

    @classmethod
    def of(cls, limiter: RateLimiter) -> RateLimiterConfig:
        return cls(**{name: getattr(limiter, name) for name in cls.__struct_fields__})

    def to_limiter(self) -> RateLimiter:
        return RateLimiter(self.min_size, self.samples_per_insert, self.error_buffer, self.queue_size)


class ShardConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `headrace serve-replay` reads."""

    spec: Annotated[SpecConfig, Meta(description="Layout of the records.")]
    capacity: Annotated[int, Meta(ge=1, description="Records held; then `remover` makes room.")]
    table: Annotated[
        str, Meta(min_length=1, max_length=16, pattern="^[!-~]+$", description="Name of the table, ASCII.")
    ] = "replay"
    address: Annotated[
        str, Meta(description="HOST:PORT to serve at; port 0 takes a free one. Off loopback: needs tls, token.")
    ] = "127.0.0.1:0"
    priority_exponent: Annotated[
        float, Meta(ge=0, le=1, description="Exponent alpha on priorities; 0 samples uniformly.")
    ] = 0.6
    sampler: Annotated[
        Literal["stratified", "multinomial", "uniform", "fifo", "lifo"],
        Meta(
            description="By priority: stratified (one draw from each of a batch's equal strata) or multinomial "
            "(independent draws); uniform: all alike; fifo: the oldest; lifo: the newest."
        ),
    ] = "stratified"
    remover: Annotated[
        Literal["fifo", "lowest_priority"], Meta(description="Which record makes room for a new one; fifo: the oldest.")
    ] = "fifo"
    max_times_sampled: Annotated[
        Annotated[int, Meta(ge=1, le=2**32 - 1)] | None,
        Meta(description="A record is removed by its draw of this number; null: never."),
    ] = None
    rate_limiter: Annotated[RateLimiterConfig, Meta(description="Who may go on.")] = RateLimiterConfig()
    durability: Annotated[
        Literal["checkpoint", "journal", "fsync"],
        Meta(
            description="What acknowledged inserts survive. checkpoint: nothing until the next save; journal: the end "
            "of the process, however it comes; fsync: power loss."
        ),
    ] = "checkpoint"
    directory: Annotated[
        str | None,
        Meta(
            description="Where clients may have the shard save itself, null refuses; with durability journal or fsync "
            "the shard's own, with its journal."
        ),
    ] = None
    save_directory: Annotated[
        str | None, Meta(description="Where clients may have the shard save itself, in place of directory.")
    ] = None
    restore_from: Annotated[
        str | tuple[str, ...] | None,
        Meta(
            description="Snapshot to start from; or a list, those of all of another number of shards, to start from a "
            "share of their records; with a journal only the first time."
        ),
    ] = None
    init_from: Annotated[
        tuple[str, ...],
        Meta(
            description="Snapshots whose records the shard starts with, not counted as inserted; with a journal only "
            "the first time."
        ),
    ] = ()
    init_shards: Annotated[
        int, Meta(ge=1, description="Shards that init_from, or a list in restore_from, is dealt out to in turn.")
    ] = 1
    token_file: Annotated[
        str | None, Meta(description="File with the token callers must show; null: HEADRACE_TOKEN, else none.")
    ] = None
    tls: Annotated[ServerTLS | None, Meta(description="Certificate and key; null for plaintext.")] = None
    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="Port for Prometheus, 0 for any; null: none. Needs headrace[metrics]."),
    ] = None
    metrics_host: Annotated[
        str, Meta(min_length=1, description="Address of metrics_port; off loopback whoever reaches it may read it.")
    ] = "127.0.0.1"
    seed: Annotated[int, Meta(ge=0, description="Of the shard's sampling; every shard of one replay its own.")] = 0
    shard_index: Annotated[int, Meta(ge=0, le=2**32 - 1, description="0, 1, ... of the shards of one replay.")] = 0

    def __post_init__(self) -> None:
        if self.durability != "checkpoint" and self.directory is None:
            raise ValueError(f"durability {self.durability} needs directory, where the shard keeps its journal")
        if self.restore_from == ():
            raise ValueError("restore_from is an empty list: name the snapshots, or null for none")
        if self.init_from and self.restore_from is not None:
            raise ValueError("init_from contradicts restore_from: a shard starts from one of them")
        dealt_out = self.init_from or not isinstance(self.restore_from, str | None)
        if dealt_out and self.shard_index >= self.init_shards:
            raise ValueError(f"shard_index ({self.shard_index}) must be below init_shards ({self.init_shards})")
        self.rate_limiter.to_limiter().check_table(self.capacity, self.max_times_sampled)
