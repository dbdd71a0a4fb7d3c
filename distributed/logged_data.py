"""`replay.init_from`: the records that a run starts with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distributed.build import make_spec, make_task
from distributed.config import ExperimentConfig
from distributed.run_directory import RunDirectory, replay_snapshots
from replay_server.errors import CheckpointError, ConfigError
from replay_server.logged import count_records


@dataclass(frozen=True)
class LoggedData:
    """Snapshot files, in order, and the records in all of them."""

    files: tuple[str, ...] = ()
    records: int = 0


def find_log(config: ExperimentConfig) -> LoggedData:
    """The snapshots that `replay.init_from` names, each read and compared with the records of this run.

    Raises:
        ConfigError: a file is missing, damaged or holds other records, or they are too many or too few.
    """
    replay = config.replay
    if not replay.log_paths:
        return LoggedData()
    files = tuple(str(file) for path in replay.log_paths for file in _snapshots(Path(path)))
    spec = make_spec(config, make_task(config))
    try:
        records = sum(count_records(file, spec) for file in files)
    except CheckpointError as error:
        raise ConfigError(f"replay.init_from: {error}") from error
    if records > replay.capacity:
        raise ConfigError(
            f"replay.init_from: holds {records:,} records, replay.capacity is {replay.capacity:,}; raise it"
        )
    if config.actors.count == 0 and records < replay.min_size:
        raise ConfigError(
            f"replay.init_from: holds {records:,} records and no actor adds any, replay.min_size is "
            f"{replay.min_size:,}: sampling would never begin; lower replay.min_size"
        )
    return LoggedData(files, records)


def _snapshots(path: Path) -> list[Path]:
    """The files that a snapshot, a checkpoint or a run directory stands for, of every shard in order.

    Raises:
        ConfigError: there are none.
    """
    path = path.resolve()
    if not path.is_dir():
        return [path]
    checkpoints = RunDirectory(path).complete_checkpoints()
    directory = checkpoints[-1] if checkpoints else path
    files = replay_snapshots(directory)
    if not files:
        raise ConfigError(
            f"replay.init_from: {path} holds no replay-<shard>.h5 and no complete checkpoint; name a snapshot, a "
            "checkpoint (RUN/checkpoints/STEP) or a run directory"
        )
    return files
