"""What the shards of a run are started with."""

from __future__ import annotations

import secrets
from pathlib import Path

from actors.seeds import derive
from distributed.build import shard_capacity, shard_limiter, shard_sampling
from distributed.config import ExperimentConfig
from distributed.run_directory import RunDirectory, replay_snapshots
from distributed.run_files import RunFiles
from distributed.runtime import Origin
from replay_server.shard_config import RateLimiterConfig, ShardConfig, SpecConfig
from replay_server.specs import RecordSpec


class ShardPlan:
    """Configs of the shards that a run starts itself.

    Journals lie in the run directory, in a folder of this start of the run: one that is resumed goes back to its
    checkpoint, and what journals hold of a later time is of a future that will be another. Without actors nothing is
    inserted, and nothing journalled.

    Args:
        config: the experiment.
        spec: layout of the records.
        run: where checkpoints and journals lie.
        origin: where the run starts.
        files: gives snapshots to shards that do not see the run directory.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        spec: RecordSpec,
        run: RunDirectory,
        origin: Origin,
        files: RunFiles = RunFiles(),  # noqa: B008
    ) -> None:
        self._config = config
        self._spec = spec
        self._run = run
        self._origin = origin
        self.files = files
        self._durability = config.replay.durability if config.actors.count else "checkpoint"
        self._start = run.journals / secrets.token_hex(4)

    @property
    def count(self) -> int:
        """Shards."""
        return self._config.replay.shards

    @property
    def capacity(self) -> int:
        """Records one shard holds."""
        return shard_capacity(self._config)

    def directory(self, index: int) -> Path | None:
        """Where a shard keeps its journal; None where it keeps none."""
        return None if self._durability == "checkpoint" else self._start / f"shard-{index}"

    def shard(self, index: int, address: str) -> ShardConfig:
        """A shard that starts now at HOST:PORT: from the newest complete checkpoint, unless its journal knows more."""
        config, origin = self._config, self._origin
        newest = self._run.complete_checkpoints()[-1:]
        checkpoint = newest[0] if newest else origin.checkpoint
        directory = self.directory(index)
        return ShardConfig(
            address=address,
            spec=SpecConfig.of(self._spec),
            capacity=shard_capacity(config),
            **shard_sampling(config)._asdict(),
            rate_limiter=RateLimiterConfig.of(shard_limiter(config, origin.log.records)),
            durability=self._durability,
            directory=None if directory is None else str(directory),
            save_directory=str(self._run.checkpoints),
            seed=derive(config.run.seed, "shard", index, origin.barriers),
            shard_index=index,
            metrics_port=0 if config.run.prometheus else None,
            metrics_host=address.rpartition(":")[0],
            restore_from=None if checkpoint is None else self._snapshots(checkpoint, index),
            init_from=origin.log.files if checkpoint is None else (),
            init_shards=config.replay.shards,
        )

    def _snapshots(self, checkpoint: Path, index: int) -> str | tuple[str, ...]:
        """A shard's own, or all of them where the checkpoint has more or fewer than there are shards now."""
        files = tuple(str(file) for file in replay_snapshots(checkpoint))
        return files[index] if len(files) == self.count else files
