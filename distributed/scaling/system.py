"""What a run consists of, and what each of its operations costs."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from distributed.build import shard_limiter
from distributed.config import ExperimentConfig
from replay_server.errors import ConfigError
from replay_server.rate_limiter import RateLimiter

Seconds = Annotated[float, Meta(ge=0)]


class Cost(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds of one processor: for every call, and for every record it carries."""

    call: Seconds
    record: Seconds

    def of(self, records: float) -> float:
        """Of a call with so many records."""
        return self.call + self.record * records

    @staticmethod
    def through(small: tuple[int, float], large: tuple[int, float]) -> Cost:
        """The line through two measured calls, (records, seconds) each; noise makes neither part negative."""
        (few, short), (many, long) = small, large
        record = max((long - short) / (many - few), 0.0)
        return Cost(max(short - record * few, 0.0), record)


class ServiceTimes(Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured: seconds of one processor, bytes.

    Attributes:
        vector_step_s: an actor's turn: choose actions, step its environments, make records and priorities.
        load_s: an actor takes newer weights.
        insert_client, insert_shard: a chunk, on either side.
        sample_client, sample_shard: a call for batches that brings priorities of earlier ones along, on either side.
        update_s: one update of the learner.
        snapshot_s: the learner copies its weights and hands them to the store.
        store_publish_s, store_answer_s: the weight store takes a version; tells one actor of it.
        driver_look_s, driver_report_s: the driver sees whether a worker has answered; takes a report and sends it on.
        weight_bytes, record_bytes: sizes.
        together_s: what an update takes the learner beyond its parts measured alone, because its threads wait for each
            other; fitted to the first real run, where that is bound by the learner.
    """

    vector_step_s: Seconds
    load_s: Seconds
    insert_client: Cost
    insert_shard: Cost
    sample_client: Cost
    sample_shard: Cost
    update_s: Seconds
    snapshot_s: Seconds
    store_publish_s: Seconds
    store_answer_s: Seconds
    driver_look_s: Seconds
    driver_report_s: Seconds
    weight_bytes: int
    record_bytes: int
    together_s: Seconds = 0.0


class Machines(Struct, frozen=True):
    """Where the processes run.

    Attributes:
        one: all on one machine of `head_cores`, without a network; else the head (driver, learner, weight store),
            nodes for actors with one actor a core, and nodes for shards.
        head_cores, actor_cores, shard_cores: processors of one node of each kind.
        shards_per_node: shards on one node.
        bytes_per_s: of a node's network card, each way.
        latency_s: one way.
    """

    one: bool = False
    head_cores: float = 8.0
    actor_cores: int = 16
    shard_cores: int = 4
    shards_per_node: int = 2
    bytes_per_s: float = 1.25e9
    latency_s: float = 1e-4


class System(Struct, frozen=True):
    """A run as the model sees it; sizes are in records, `limiter` is each shard's, `prefetch` in batches."""

    actors: int
    num_envs: int
    records_per_insert: int
    shards: int
    limiter: RateLimiter
    batch_size: int
    prefetch: int
    updates_per_batch: int
    publish_every_updates: int
    machines: Machines

    @staticmethod
    def of(config: ExperimentConfig, machines: Machines) -> System:
        """What a config describes.

        Raises:
            ConfigError: a run without actors, or one that learns from a queue.
        """
        if config.actors.count == 0 or config.replay.sampler == "queue":
            raise ConfigError(
                "bench scaling: the model has actors and a law of samples per insert; this config has not"
            )
        return System(
            actors=config.actors.count,
            num_envs=config.environment.num_envs,
            records_per_insert=config.actors.records_per_insert,
            shards=config.replay.shards,
            limiter=shard_limiter(config),
            batch_size=config.algorithm.batch_size,
            prefetch=config.replay.prefetch,
            updates_per_batch=config.learner.updates_per_batch,
            publish_every_updates=config.learner.publish_every_updates,
            machines=machines,
        )

    @property
    def chunk(self) -> int:
        """Records an actor sends at once: whole vector steps."""
        return math.ceil(self.records_per_insert / self.num_envs) * self.num_envs

    @property
    def nodes(self) -> dict[str, int]:
        """Machines by kind."""
        if self.machines.one:
            return {"head": 1}
        return {
            "head": 1,
            "actor": math.ceil(self.actors / self.machines.actor_cores),
            "shard": math.ceil(self.shards / self.machines.shards_per_node),
        }


def sized(config: ExperimentConfig, actors: int, shards: int) -> ExperimentConfig:
    """The config with so many actors and at most so many shards: an actor writes to one alone.

    Raises:
        ConfigError: the settings contradict each other.
    """
    count = msgspec.structs.replace(config.actors, count=actors)
    replay = msgspec.structs.replace(config.replay, shards=min(shards, actors))
    return msgspec.structs.replace(config, actors=count, replay=replay)
