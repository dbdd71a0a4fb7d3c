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
            if run.path.exists() and any(run.path.iterdir()):
                raise ConfigError(
                    f"--run-dir: {path} is not empty; choose another, or continue that run with --resume {path}"
                )
            run.logs.mkdir(parents=True, exist_ok=True)
            run.checkpoints.mkdir(exist_ok=True)
            run.config.write_text(config_yaml)
        except OSError as error:
            raise ConfigError(f"--run-dir: cannot make {path}: {error.strerror}") from error
        return run

    def discard(self) -> None:
        """Remove the directory of a run that never began."""
        shutil.rmtree(self.path, ignore_errors=True)

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """Open an existing run directory.

        Raises:
            ConfigError: there is no run at the path.
        """
        run = RunDirectory(path)
        if not run.config.is_file():
            raise ConfigError(f"{path} is not a run directory (no config.yaml in it)")
        return run

    def write_result(self, result: dict[str, Any]) -> None:
        """Write `result.json` in one go."""
        write_json(self.result, result)

    def new_checkpoint(self, step: int) -> Path:
        """An empty directory for the checkpoint at `step` transitions; it counts only once its manifest is there."""
        directory = self.checkpoints / str(step)
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        return directory

    def complete_checkpoint(self, directory: Path, manifest: dict[str, Any], keep: int) -> None:
        """Write the manifest, which makes a checkpoint valid, and remove the oldest beyond `keep`."""
        write_json(directory / _MANIFEST, manifest)
        for old in self.complete_checkpoints()[:-keep]:
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
            raise CheckpointError(f"{directory}: {name} is missing; the checkpoint is partial and is not used")
        if path.stat().st_size != size:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, the manifest says {size}; it is damaged")
    return manifest
