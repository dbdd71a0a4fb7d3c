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

    def to_limiter(self) -> RateLimiter:
        return RateLimiter(self.min_size, self.samples_per_insert, self.error_buffer)


class ShardConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `headrace serve-replay` reads."""

    spec: Annotated[SpecConfig, Meta(description="Layout of the records.")]
    capacity: Annotated[int, Meta(ge=1, description="Records held; the oldest are overwritten.")]
    address: Annotated[
        str, Meta(description="HOST:PORT to serve at; port 0 takes a free one. Off loopback: needs tls, token.")
    ] = "127.0.0.1:0"
    priority_exponent: Annotated[
        float, Meta(ge=0, le=1, description="Exponent alpha on priorities; 0 samples uniformly.")
    ] = 0.6
    sampler: Annotated[
        Literal["stratified", "multinomial"],
        Meta(description="stratified: one draw from each of a batch's equal strata; multinomial: independent draws."),
    ] = "stratified"
    rate_limiter: Annotated[RateLimiterConfig, Meta(description="Who may go on.")] = RateLimiterConfig()
    directory: Annotated[
        str | None, Meta(description="Where clients may have the shard save itself; null refuses.")
    ] = None
    restore_from: Annotated[str | None, Meta(description="Checkpoint file to start from.")] = None
    token_file: Annotated[
        str | None, Meta(description="File with the token callers must show; null: HEADRACE_TOKEN, else none.")
    ] = None
    tls: Annotated[ServerTLS | None, Meta(description="Certificate and key; null for plaintext.")] = None
    seed: Annotated[int, Meta(ge=0, description="Of the shard's sampling; every shard of one replay its own.")] = 0
    shard_index: Annotated[int, Meta(ge=0, le=2**32 - 1, description="0, 1, ... of the shards of one replay.")] = 0

    def __post_init__(self) -> None:
        if self.rate_limiter.min_size > self.capacity:
            raise ValueError(f"rate_limiter.min_size ({self.rate_limiter.min_size}) exceeds capacity ({self.capacity})")
