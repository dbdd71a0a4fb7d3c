"""Copies of checkpoints at a URL: wherever fsspec can put files, so that a run outlives its machine.

A URL looks as a run directory does, `config.yaml` and `checkpoints/<step>/`. Every manifest goes up last and is the
first to go, so what has one is whole.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

from distributed.background import in_background
from distributed.manifest import MANIFEST, read_manifest
from distributed.run_directory import RunDirectory, refuse_used
from replay_server.errors import CheckpointError, ConfigError

_CONFIG = "config.yaml"
_STILL_SECONDS = 600.0
"""How long a copy may make no progress that is seen."""
_UNSEEN_BYTES_PER_SECOND = 4e6
"""What it gets more time for with a large file: some protocols tell nothing before a file is whole."""


class _Patience:
    """When a copy made progress; one that was given up ends where it would have made its next."""

    def __init__(self) -> None:
        self._given_up = False
        self._file_bytes = 0
        self._moved = time.monotonic()

    def begin_file(self, file_bytes: int) -> None:
        """The copy goes on with a file of this size, 0 for a call that moves none."""
        self._file_bytes = file_bytes
        self.moved()

    def moved(self, *_: object, **__: object) -> None:
        """The copy goes on; raises CheckpointError where nobody waits for it any more."""
        if self._given_up:
            raise CheckpointError("was given up")
        self._moved = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Until it is at its end, as far as is known now."""
        allowed = _STILL_SECONDS + self._file_bytes / _UNSEEN_BYTES_PER_SECOND
        return self._moved + allowed - time.monotonic()

    def give_up(self) -> float:
        """Wait no more; returns for how many seconds nothing has moved."""
        self._given_up = True
        return time.monotonic() - self._moved


class RemoteCheckpoints:
    """The checkpoints of one run at a URL.

    Args:
        url: protocol://..., any that an installed package teaches fsspec.

    Raises:
        ConfigError: fsspec, or the package for the protocol, is not installed, or the URL is none.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._copying: Future[None] | None = None
        try:
            from fsspec.core import url_to_fs
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"run.checkpoint_url: {url} needs fsspec, which is not installed; pip install 'headrace[remote]'"
            ) from error
        try:
            self._files, self._root = url_to_fs(self._url, use_listings_cache=False)
        except (ImportError, ValueError) as error:  # it names the package for a protocol it knows, or the protocols
            raise ConfigError(f"run.checkpoint_url: {url}: {_line(error)}") from error

    def create(self, config_yaml: str) -> None:
        """Make the place of a new run.

        Raises:
            ConfigError: another run is there, or nothing can be written there.
        """
        try:
            used = self._files.exists(self._at(_CONFIG))
        except Exception as error:  # every protocol has errors of its own
            raise ConfigError(f"run.checkpoint_url: cannot use {self._url}: {_line(error)}") from error
        if used:
            raise ConfigError(
                f"run.checkpoint_url: {self._url} holds a run; choose another URL, or continue that run with "
                f"--resume {self._url} --run-dir DIR"
            )
        self.write_config(config_yaml)

    def write_config(self, config_yaml: str) -> None:
        """Write `config.yaml`; a resumed run may have other settings.

        Raises:
            ConfigError: nothing can be written there.
        """
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._at(_CONFIG), config_yaml.encode())
        except Exception as error:
            raise ConfigError(f"run.checkpoint_url: cannot write to {self._url}: {_line(error)}") from error

    def upload(self, directory: Path, keep: int) -> None:
        """Copy a complete checkpoint, and remove the oldest there beyond `keep`.

        Raises:
            CheckpointError: that did not work, or went on for long without progress, or one that was given up for
                that is still not heard of; what is there without a manifest counts for nothing.
        """
        if self._copying is not None and not self._copying.done():
            raise CheckpointError(f"{self._url}: has still not answered for an earlier copy")
        patience = _Patience()
        self._copying = in_background(partial(self._upload, directory, keep, patience), "copy")
        while not wait([self._copying], max(patience.seconds_left, 0.0)).done:
            if patience.seconds_left <= 0.0:
                raise CheckpointError(f"{self._url}: the copy was given up: no progress for {patience.give_up():.0f} s")
        self._copying.result()

    def _upload(self, directory: Path, keep: int, patience: _Patience) -> None:
        from fsspec.callbacks import Callback

        place, told = self._at("checkpoints", directory.name), Callback(hooks={"moved": patience.moved})
        try:
            self._remove(place)
            self._files.makedirs(place, exist_ok=True)
            files = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
            for path in [*files, directory / MANIFEST]:
                patience.begin_file(path.stat().st_size)
                self._files.put_file(str(path), f"{place}/{path.name}", callback=told)
            for step in self._steps()[:-keep]:
                patience.begin_file(0)
                self._remove(self._at("checkpoints", str(step)))
        except Exception as error:
            raise CheckpointError(f"{self._url}: cannot be written to: {_line(error)}") from error

    def discard_after(self, step: int) -> None:
        """Remove checkpoints later than the one a run continues from.

        Raises:
            CheckpointError: that did not work.
        """
        try:
            for later in self._steps():
                if later > step:
                    self._remove(self._at("checkpoints", str(later)))
        except Exception as error:
            raise CheckpointError(f"{self._url}: cannot be written to: {_line(error)}") from error

    def fetch(self, path: Path) -> RunDirectory:
        """Make a run directory from what is at the URL: its config and its newest complete checkpoint.

        It is made beside `path` and gets its name when it is whole: what broke off is in nobody's way.

        Args:
            path: of the directory, new.

        Raises:
            ConfigError: there is no run at the URL or no complete checkpoint of it, or the directory cannot be made.
            CheckpointError: the checkpoint is partial or damaged, or the connection fails.
        """
        try:
            config = self._files.cat_file(self._at(_CONFIG)).decode()
            steps = self._steps()
        except FileNotFoundError:
            raise ConfigError(f"--resume: {self._url} is not a run (no {_CONFIG} in it)") from None
        except Exception as error:
            raise ConfigError(f"--resume: cannot read {self._url}: {_line(error)}") from error
        if not steps:
            raise ConfigError(f"--resume: {self._url} has no complete checkpoint; start the run anew with train")
        path = path.resolve()
        refuse_used(path)
        if path.is_mount():
            raise ConfigError(f"--run-dir: {path} is where a disk is mounted; name a directory in it")
        beside = path.with_name(f".{path.name}.part")
        shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
        try:
            self._fetch_checkpoint(steps[-1], RunDirectory.create(beside, config))
            beside.rename(path)
        except OSError as error:
            raise ConfigError(f"--run-dir: cannot make {path}: {error.strerror}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return RunDirectory.open(path)

    def _fetch_checkpoint(self, step: int, run: RunDirectory) -> None:
        place, directory = self._at("checkpoints", str(step)), run.new_checkpoint(step)
        try:
            names = [str(name).rsplit("/", 1)[-1] for name in self._files.ls(place, detail=False)]
            for name in sorted(names, key=lambda name: name == MANIFEST):
                self._files.get_file(f"{place}/{name}", str(directory / name))
        except Exception as error:
            raise CheckpointError(f"{place}: cannot be read: {_line(error)}") from error
        read_manifest(directory)
        run.clean_up()  # it lacks nothing but its name

    def _at(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    def _steps(self) -> list[int]:
        """Of the complete checkpoints, in order."""
        place = self._at("checkpoints")
        if not self._files.exists(place):
            return []
        names = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in self._files.ls(place, detail=False)]
        return sorted(int(n) for n in names if n.isdigit() and self._files.exists(f"{place}/{n}/{MANIFEST}"))

    def _remove(self, place: str) -> None:
        if self._files.exists(f"{place}/{MANIFEST}"):
            self._files.rm_file(f"{place}/{MANIFEST}")
        if self._files.exists(place):
            self._files.rm(place, recursive=True)


def _line(error: BaseException) -> Any:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
