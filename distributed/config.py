"""The configuration of a whole experiment: one frozen struct a part."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.environments import EnvironmentConfig
from actors.evaluator import EvaluationConfig

Address = Annotated[str, Meta(pattern=r"^[^\s/]+:\d+$")]


class ReplayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replay: where transitions are kept.

    With `addresses` the shards' own config decides capacity, sampler, priority exponent, minimum size, samples per
    insert and durability. A `queue` lets actors run ahead of the learner by `capacity` records.
    """

    shards: Annotated[int, Meta(ge=1, description="Shards the run starts itself.")] = 1
    addresses: Annotated[
        tuple[Address, ...],
        Meta(description="HOST:PORT of shards that run elsewhere; empty: own shards."),
    ] = ()
    capacity: Annotated[
        int, Meta(ge=1, description="Records over all shards; the oldest are overwritten, or a full queue waited for.")
    ] = 200_000
    sampler: Annotated[
        Literal["prioritized", "uniform", "queue"],
        Meta(description="prioritized; uniform: all alike; queue: each record once, the oldest first (on-policy)."),
    ] = "prioritized"
    priority_exponent: Annotated[
        float, Meta(ge=0, le=1, description="Exponent alpha on priorities; 0 samples uniformly.")
    ] = 0.6
    min_size: Annotated[int, Meta(ge=1, description="Records over all shards before sampling begins.")] = 1_000
    transport: Annotated[
        Literal["auto", "grpc", "shm"],
        Meta(description="auto: shared memory where shard and client share a host, else gRPC (runtime ray)."),
    ] = "auto"
    durability: Annotated[
        Literal["checkpoint", "journal", "fsync"],
        Meta(description="What stored records survive: the run's checkpoints alone; a shard's end; power loss (ray)."),
    ] = "journal"
    unreachable_seconds: Annotated[
        float, Meta(gt=0, description="How long actors and learner wait for a shard that nobody starts again (ray).")
    ] = 120.0
    init_from: Annotated[
        str | tuple[str, ...],
        Meta(description="Snapshots (files, checkpoints, runs) whose records the replay holds at the start."),
    ] = ()
    prefetch: Annotated[
        int, Meta(ge=0, description="Batches the learner asks for ahead (runtime ray; serial never does).")
    ] = 8

    def __post_init__(self) -> None:
        if self.min_size > self.capacity:
            raise ValueError(f"min_size ({self.min_size}) is larger than capacity ({self.capacity})")
        if self.sampler != "prioritized" and self.priority_exponent != 0.0:
            raise ValueError(
                f"priority_exponent ({self.priority_exponent}) does nothing with sampler {self.sampler}: set it to 0"
            )
        if self.sampler == "queue" and self.min_size != 1:
            raise ValueError(f"min_size ({self.min_size}) must be 1 with sampler queue, whose records leave when drawn")
        if self.addresses and self.sampler != "prioritized":
            raise ValueError(f"sampler ({self.sampler}) is decided by the shards' own config where addresses are given")
        if self.addresses and self.shards not in (1, len(self.addresses)):
            raise ValueError(f"shards ({self.shards}) contradicts the {len(self.addresses)} addresses")
        if len(set(self.addresses)) != len(self.addresses):
            raise ValueError("addresses names a shard twice")
        if self.addresses and self.log_paths:
            raise ValueError("init_from contradicts addresses: give init_from to the shards there (serve-replay)")
        if self.sampler == "queue" and self.log_paths:
            raise ValueError("init_from contradicts sampler queue, which learns from every record once, as it comes")

    @property
    def log_paths(self) -> tuple[str, ...]:
        """`init_from` as a list."""
        return (self.init_from,) if isinstance(self.init_from, str) else self.init_from


class ActorsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rollout actors.

    Without any, a run learns from `replay.init_from` alone, and all that otherwise counts environment transitions
    (`run.total_env_steps`, every `..._env_steps`, schedules, rows and results) counts learner updates.
    """

    count: Annotated[
        int, Meta(ge=0, description="Rollout actors, each with environment.num_envs environments; 0: offline.")
    ] = 1
    records_per_insert: Annotated[
        int, Meta(ge=1, description="Records an actor collects before it sends them to a shard.")
    ] = 64
    hang_seconds: Annotated[
        float, Meta(gt=0, description="An actor that has not reported for so long is replaced (runtime ray).")
    ] = 60.0
    max_weight_lag: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Versions that an actor's weights may be behind the newest published; null: any number."),
    ] = None
    on_weight_lag: Annotated[
        Literal["pause", "tag"],
        Meta(description="Beyond max_weight_lag: pause: act no further until weights come; tag: go on, counted."),
    ] = "pause"


class LearnerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The learner's machine and pace."""

    device: Annotated[Literal["auto", "cpu", "cuda"], Meta(description="auto: a GPU if there is one.")] = "auto"
    samples_per_insert: Annotated[
        float, Meta(gt=0, description="Records sampled per record inserted, kept by the shards; no law without actors.")
    ] = 8.0
    updates_per_batch: Annotated[
        int, Meta(ge=1, description="Updates made from each sampled batch; samples_per_insert counts it once.")
    ] = 1
    publish_every_updates: Annotated[int, Meta(ge=1, description="Updates between two published versions.")] = 50
    threads: Annotated[int, Meta(ge=1, description="CPU threads of torch in the learner (runtime ray).")] = 1
    processes: Annotated[
        int,
        Meta(
            ge=1, description="Processes that make each update together, with equal parts of its batch (runtime ray)."
        ),
    ] = 1
    hang_seconds: Annotated[
        float, Meta(gt=0, description="A learner that has not reported for so long is replaced (runtime ray).")
    ] = 60.0


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a run stops and what it writes. Without actors its steps are learner updates."""

    seed: Annotated[int, Meta(ge=0, description="Every random generator of the run derives from it.")] = 0
    total_env_steps: Annotated[
        int, Meta(ge=1, description="Stop after so many environment transitions (updates without actors).")
    ] = 100_000
    max_seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Stop after so many seconds of training.")
    ] = None
    stop_at_return: Annotated[
        float | None, Meta(description="Stop when a periodic evaluation's mean return reaches this.")
    ] = None
    checkpoint_every_env_steps: Annotated[
        int, Meta(ge=0, description="Transitions (updates without actors) between checkpoints; 0: only the final one.")
    ] = 100_000
    keep_checkpoints: Annotated[
        int, Meta(ge=1, description="Newest checkpoints kept; the newest scheduled one always is.")
    ] = 2
    metrics_every_env_steps: Annotated[
        int,
        Meta(ge=1, description="Transitions (updates without actors) between rows of metrics."),
    ] = 5_000
    directory: Annotated[str, Meta(description="Where run directories are made.")] = "runs"
    prometheus: Annotated[
        bool, Meta(description="Every process serves metrics (headrace[metrics]); prometheus_targets.json says where.")
    ] = False
    checkpoint_url: Annotated[
        Annotated[str, Meta(pattern=r"^\w+://.+")] | None,
        Meta(
            description="Where checkpoints are copied to: file://, s3://, gs://, ... (headrace[remote]); null: nowhere."
        ),
    ] = None


class RayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Ray cluster a run uses."""

    address: Annotated[
        str, Meta(description="local starts a private Ray; auto or HOST:PORT joins a cluster, over all of its nodes.")
    ] = "local"
    placement: Annotated[
        Literal["auto", "roles"],
        Meta(description="roles: shards and learner need the resources replay, learner; auto: where nodes have them."),
    ] = "auto"
    working_dir: Annotated[
        str | None,
        Meta(description="Directory sent to all nodes of a cluster, for modules of your own; null: they see its path."),
    ] = None

    def __post_init__(self) -> None:
        if self.address not in ("local", "auto") and not re.fullmatch(r"[^\s/]+:\d+", self.address):
            raise ValueError(f"address is {self.address!r}; it must be local, auto or HOST:PORT of a Ray head")
        if self.working_dir is not None and self.address == "local":
            raise ValueError("working_dir is sent to the nodes of a cluster: drop it, or set address")


class ExperimentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole experiment; `algorithm` is the struct that `algorithm.type` names."""

    runtime: Annotated[
        Literal["ray", "serial"], Meta(description="ray: processes; serial: one thread, bit for bit repeatable.")
    ] = "ray"
    environment: EnvironmentConfig
    algorithm: Any
    replay: ReplayConfig = ReplayConfig()
    actors: ActorsConfig = ActorsConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()
    ray: RayConfig = RayConfig()

    @property
    def one_machine(self) -> bool:
        """Whether all processes of the run are on this one."""
        return self.runtime == "serial" or self.ray.address == "local"

    def __post_init__(self) -> None:
        if self.environment.normalise_rewards and self.algorithm.reward_scale != 1.0:
            raise ValueError("algorithm.reward_scale must be 1 when environment.normalise_rewards is on")
        if self.replay.sampler == "queue" and self.learner.samples_per_insert != 1.0:
            raise ValueError(
                f"learner.samples_per_insert ({self.learner.samples_per_insert}) must be 1 with replay.sampler queue, "
                "which gives every record once"
            )
        # Shards that run elsewhere decide their sampler themselves.
        if self.replay.sampler != "queue" and not self.replay.addresses and (reason := self.algorithm.needs_queue):
            raise ValueError(f"{reason}, or replay.sampler ({self.replay.sampler}) to queue")
        if self.actors.count == 0:
            self._check_offline()
        elif not self.replay.addresses and self.replay.shards > self.actors.count:
            raise ValueError(
                f"replay.shards ({self.replay.shards}) is larger than actors.count ({self.actors.count}): an actor "
                "writes to one shard, so some would stay empty"
            )
        if self.runtime == "serial" and self.replay.addresses:
            raise ValueError("runtime serial keeps its replay in the process: drop replay.addresses or use runtime ray")
        if self.runtime == "serial" and self.learner.device == "cuda":
            raise ValueError("runtime serial is repeatable on the CPU only: drop learner.device or use runtime ray")
        if self.runtime == "serial" and self.learner.processes > 1:
            raise ValueError("runtime serial is one process: drop learner.processes or use runtime ray")
        if self.algorithm.batch_size % self.learner.processes:
            raise ValueError(
                f"algorithm.batch_size ({self.algorithm.batch_size}) must be a multiple of learner.processes "
                f"({self.learner.processes}), which take equal parts of it"
            )
        if self.run.stop_at_return is not None and self.evaluation.every_env_steps == 0:
            raise ValueError("run.stop_at_return needs periodic evaluations: set evaluation.every_env_steps")

    def _check_offline(self) -> None:
        if not self.replay.log_paths:
            raise ValueError("actors.count is 0, which leaves nothing to learn from: set replay.init_from")
        if self.environment.normalise_observations or self.environment.normalise_rewards:
            raise ValueError(
                "environment.normalise_observations and normalise_rewards take their moments from actors: "
                "drop them or set actors.count"
            )
