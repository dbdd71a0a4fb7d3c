"""The files of one run and where they lie."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed.identity import Identity
from distributed.manifest import MANIFEST, write_manifest
from learners.checkpoint import replace_text, sync, write_json
from replay_server.errors import CheckpointError, ConfigError

_UNFINISHED = ".part"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class RunDirectory:
    """The files of one run.

    `config.yaml`, `run_id`, `status.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/<step>/`, `logs/` and
    `result.json`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.journals = self.path / "journals"  # of shards, while the run goes on
        self.logs = self.path / "logs"
        self.status = self.path / "status.json"
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

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Have the run to oneself: two drivers of it would remove each other's checkpoints.

        The system takes the lock back when the process ends, however it does. A file system without locks has none.

        Raises:
            ConfigError: another process drives the run, or the lock cannot be written.
        """
        try:
            lock = os.open(self.path / "driver.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror}); a run goes on in it") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                who = os.pread(lock, 1000, 0).decode(errors="replace").strip() or "another process"
                raise ConfigError(
                    f"{self.path}: {who} drives this run; end that first, or wait until it has"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise ConfigError(f"{self.path}: cannot be locked ({error.strerror})") from error
            os.truncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            yield
        finally:
            os.close(lock)

    @property
    def id(self) -> str:
        """One short word that tells the run from others: made when it is asked for first, then kept."""
        file = self.path / "run_id"
        if not file.exists():
            file.write_text(_new_word() + "\n")
        return file.read_text().strip()

    def identity(self, *, prometheus: bool = False, loopback: bool = True) -> Identity:
        """Of the run's driver."""
        return Identity(self.id, self.path, prometheus=prometheus, loopback=loopback)

    def write_config(self, config_yaml: str) -> None:
        """Replace `config.yaml`: a resumed run may have other settings."""
        replace_text(self.config, config_yaml)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write `result.json` in one go."""
        write_json(self.result, result)

    def new_checkpoint(self, step: int) -> Path:
        """An empty directory to write the checkpoint at `step` transitions into."""
        directory = self.checkpoints / f"{step}{_UNFINISHED}"
        if directory.exists():
            _remove(directory)
        directory.mkdir(parents=True)
        return directory

    def complete_checkpoint(self, directory: Path, manifest: Mapping[str, Any], keep: int) -> Path:
        """Write the manifest, name the directory after its `env_steps`, and remove the oldest beyond `keep`.

        The newest scheduled checkpoint always stays: a serial run continues from it.
        """
        write_manifest(directory, manifest)
        self._name(directory, str(manifest["env_steps"]))
        checkpoints = self.complete_checkpoints()
        scheduled = [d for d in checkpoints if is_scheduled(d)][-1:]
        for old in checkpoints[:-keep]:
            if old not in scheduled:
                _remove(old)
        return self.checkpoints / str(manifest["env_steps"])

    def remove_unfinished(self, directory: Path) -> None:
        """Remove what there is of a checkpoint that was given up; what somebody still writes goes with `clean_up`."""
        shutil.rmtree(directory, ignore_errors=True)

    def clean_up(self) -> list[str]:
        """Finish or remove what a killed run left half done; returns the names of checkpoints that were cut short.

        Only for who has the run to himself. One that lacks nothing but its name gets it.
        """
        cut_short = []
        for directory in sorted(self.checkpoints.iterdir()) if self.checkpoints.is_dir() else []:
            whole = (directory / MANIFEST).is_file()
            if directory.suffix == _UNFINISHED and whole:
                self._name(directory, str(json.loads((directory / MANIFEST).read_text())["env_steps"]))
            elif directory.suffix == _UNFINISHED or (directory.name.isdigit() and not whole):
                _remove(directory)
                cut_short += [directory.name] if directory.suffix == _UNFINISHED else []
        return cut_short

    def discard_after(self, checkpoint: Path) -> None:
        """Remove checkpoints later than the one a run continues from: they are of a future that will be another."""
        for later in self.complete_checkpoints():
            if int(later.name) > int(checkpoint.name):
                _remove(later)

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints with a manifest, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        steps = [d for d in self.checkpoints.iterdir() if d.name.isdigit() and (d / MANIFEST).is_file()]
        return sorted(steps, key=lambda d: int(d.name))

    def _name(self, directory: Path, step: str) -> None:
        """Give a whole checkpoint its name; one of the same step goes first, and `clean_up` ends what is cut short."""
        final = directory.with_name(step)
        if final.exists():
            _remove(final)
        directory.rename(final)
        sync(self.checkpoints)


def _new_word() -> str:
    """Six letters that can be said aloud: one of half a million words."""
    return "".join(secrets.choice(letters) for letters in ("bdfghjklmnprstvz", "aeiou") * 3)


def refuse_used(path: Path) -> None:
    """Raises ConfigError when a path holds something already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"--run-dir: {path} is not empty; choose another, or continue that run with --resume {path}")


def is_scheduled(directory: Path) -> bool:
    """Whether a complete checkpoint was made on schedule, rather than because the run was stopped there."""
    try:
        return bool(json.loads((directory / MANIFEST).read_text())["scheduled"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{directory}: no readable {MANIFEST} ({error})") from error


def replay_snapshots(directory: Path) -> list[Path]:
    """The files of a checkpoint's shards, in the order of their numbers."""
    return sorted(directory.glob("replay-*.h5"), key=lambda file: (len(file.name), file.name))


def _remove(directory: Path) -> None:
    """The manifest first: whatever is left of a removal that was cut short is no checkpoint."""
    (directory / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(directory)
