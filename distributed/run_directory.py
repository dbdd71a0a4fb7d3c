"""The files of one run and where they lie."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from learners.checkpoint import write_json
from replay_server.errors import CheckpointError, ConfigError

_MANIFEST = "manifest.json"


class RunDirectory:
    """`config.yaml`, `metrics.jsonl`, `tensorboard/`, `checkpoints/<step>/`, `logs/` and `result.json` of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.journals = self.path / "journals"  # of shards, while the run goes on
        self.logs = self.path / "logs"
        self.result = self.path / "result.json"

    @staticmethod
    def create(path: Path, config_yaml: str) -> RunDirectory:
        """Make a new run directory.

        Raises:
            ConfigError: the path holds something already or cannot be made.
        """
        run = RunDirectory(path)
        try:
            refuse_used(path)
            run.logs.mkdir(parents=True, exist_ok=True)
            run.checkpoints.mkdir(exist_ok=True)
            run.config.write_text(config_yaml)
        except OSError as error:
            raise ConfigError(f"--run-dir: cannot make {path}: {error.strerror}") from error
        return run

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """Open an existing run directory.

        Raises:
            ConfigError: there is no run at the path.
        """
        run = RunDirectory(path)
        if not run.config.is_file():
            seeds = sorted(d.name for d in run.path.glob("seed-*")) if run.path.is_dir() else []
            hint = f"; it holds one run a seed: name {path / seeds[0]}" if seeds else ""
            raise ConfigError(f"{path} is not a run directory (no config.yaml in it){hint}")
        return run

    def write_config(self, config_yaml: str) -> None:
        """Replace `config.yaml`: a resumed run may have other settings."""
        beside = self.config.with_suffix(".part")
        beside.write_text(config_yaml)
        beside.replace(self.config)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write `result.json` in one go."""
        write_json(self.result, result)

    def new_checkpoint(self, step: int) -> Path:
        """An empty directory to write the checkpoint at `step` transitions into."""
        directory = self.checkpoints / f"{step}.part"
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        return directory

    def complete_checkpoint(self, directory: Path, manifest: dict[str, Any], keep: int) -> None:
        """Write the manifest, name the directory after its `env_steps`, and remove the oldest beyond `keep`.

        The newest scheduled checkpoint always stays: a serial run continues from it.
        """
        write_json(directory / _MANIFEST, manifest)
        final = directory.with_name(str(manifest["env_steps"]))
        if final.exists():
            shutil.rmtree(final)
        directory.rename(final)
        checkpoints = self.complete_checkpoints()
        scheduled = [d for d in checkpoints if is_scheduled(d)][-1:]
        for old in checkpoints[:-keep]:
            if old not in scheduled:
                shutil.rmtree(old)

    def discard_after(self, checkpoint: Path) -> None:
        """Remove checkpoints later than the one a run continues from: they are of a future that will be another."""
        for later in self.complete_checkpoints():
            if int(later.name) > int(checkpoint.name):
                shutil.rmtree(later)

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints with a manifest, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        steps = [d for d in self.checkpoints.iterdir() if d.name.isdigit() and (d / _MANIFEST).is_file()]
        return sorted(steps, key=lambda d: int(d.name))


def refuse_used(path: Path) -> None:
    """Raises ConfigError when a path holds something already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"--run-dir: {path} is not empty; choose another, or continue that run with --resume {path}")


def is_scheduled(directory: Path) -> bool:
    """Whether a complete checkpoint was made on schedule, rather than because the run was stopped there."""
    try:
        return bool(json.loads((directory / _MANIFEST).read_text())["scheduled"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{directory}: no readable {_MANIFEST} ({error})") from error


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, with every file it names checked to be there in full size.

    Raises:
        CheckpointError: a file is missing or of another size, or the manifest is unreadable.
    """
    try:
        manifest: dict[str, Any] = json.loads((directory / _MANIFEST).read_text())
        files: dict[str, int] = manifest["files"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{directory}: no readable {_MANIFEST} ({error})") from error
    for name, size in files.items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"{directory}: {name} is missing; partial; remove it to use the checkpoint before it")
        if path.stat().st_size != size:
            raise CheckpointError(
                f"{path}: {path.stat().st_size} bytes, the manifest says {size}: damaged; remove {directory} "
                "to use the checkpoint before it"
            )
    return manifest
