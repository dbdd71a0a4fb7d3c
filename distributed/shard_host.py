"""A replay shard as a child process of a thin Ray actor. Imports neither torch nor the learners, to start fast."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from distributed.event_log import EventLog
from distributed.identity import Identity
from distributed.private_file import PrivateFile
from distributed.replay_access import ReplayAccess
from distributed.run_files import RunFiles
from distributed.run_secrets import ClientSecrets, ShardSecrets
from distributed.shard_process import ShardProcess
from replay_server import Replay, ServerTLS
from replay_server.shard_config import ShardConfig

_HANG_SECONDS = 60.0


@dataclass(frozen=True)
class Served:
    """A shard that serves: where, records ever inserted and held with all that came back, and where its metrics are."""

    address: str
    inserted: int
    size: int
    metrics: str | None = None


class ShardHost:
    """Starts `headrace serve-replay` as a child process and ends it with itself.

    The shard is no Ray worker, so that Ray's memory monitor does not choose it when memory is short.
    """

    def __init__(self, identity: Identity) -> None:
        self._logs = identity.directory / "logs"
        self._log = EventLog(identity)
        self._log.start()
        self._process: ShardProcess | None = None
        self._replay: Replay | None = None
        self._files: list[PrivateFile] = []

    def arrive(self) -> str:
        """Where the shard is to serve, as soon as there was room for this process and it has started."""
        return self._log.identity.host

    def metrics_address(self) -> None:
        """This process serves none; its shard does."""

    def begin(
        self,
        config: ShardConfig,
        secrets: ShardSecrets,
        client: ClientSecrets,
        files: RunFiles,
        *,
        again: bool,
    ) -> Served:
        """Start the shard, from its journal where that holds something; returns once it serves.

        Args:
            config: of the shard; journals of earlier starts of the run, beside its directory, are removed.
            secrets: what it asks of its clients.
            client: what a client shows.
            files: gives snapshots that this node does not see.
            again: it has served before: without a snapshot it begins empty, and goes on.

        Raises:
            WorkerDied: it ended before it served.
        """
        self._end()
        begin, logs = time.monotonic(), self._logs
        logs.mkdir(parents=True, exist_ok=True)
        config_file = logs / f"shard-{config.shard_index}.yaml"
        if config.durability != "checkpoint" and config.directory is not None:
            _remove_earlier_starts(Path(config.directory).parent)
            if _holds_something(Path(config.directory)):
                config = msgspec.structs.replace(config, restore_from=None, init_from=())
        fetched = logs / f"fetched-{config.shard_index}"
        config = _with_files(config, files, fetched)
        if again and not all(Path(file).is_file() for file in _snapshots(config)):
            config = msgspec.structs.replace(config, restore_from=None)
        config = self._secured(config, secrets)
        config_file.write_text(yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False))
        self._process = ShardProcess(config_file, [file.descriptor for file in self._files])
        self._access = ReplayAccess({config.shard_index: self._process.address}, client)
        self._replay = self._access.connect(config.spec.to_spec(), transport="grpc")
        self._heard = time.monotonic()
        shutil.rmtree(fetched, ignore_errors=True)
        stats = self._replay.stats()
        seconds = time.monotonic() - begin
        self._log.info(
            "ready", shard_pid=self._process.pid, records=stats.size, seconds=seconds, text=self._process.serving
        )
        return Served(self._process.address, stats.inserted, stats.size, self._process.metrics)

    def watch(self, seconds: float) -> str | None:
        """Why the shard has ended; None when it is still there after so many seconds."""
        assert self._process is not None and self._replay is not None
        end = self._process.ended(seconds)
        for line in self._process.take_said():
            self._log.warning("said", shard_pid=self._process.pid, text=line)
        if end is not None:
            self._log.warning("ended", shard_pid=self._process.pid, how=end)
            return end
        if self._replay.stats().shards[0].state == "serving":
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > _HANG_SECONDS:
            self._end()
            return f"it had not answered for {_HANG_SECONDS:.0f} s"
        return None

    def stop(self, timeout_s: float, directory: Path | None) -> None:
        """Drain and end the shard, by force after `timeout_s` seconds; remove the directory of its journal."""
        if self._process is not None:
            self._process.stop(timeout_s)
            self._log.info("stop")
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # others' journals are still there, or somebody removed these first
                for folder in (directory.parent, directory.parent.parent):
                    folder.rmdir()

    def _secured(self, config: ShardConfig, secrets: ShardSecrets) -> ShardConfig:
        """The config with its secrets in files of this process and its child."""
        files = {"token": secrets.token.encode(), "certificate": secrets.certificate, "key": secrets.key}
        made = {name: PrivateFile(name, content) for name, content in files.items() if content is not None}
        self._files = list(made.values())
        paths = {name: str(file.path) for name, file in made.items()}
        tls = ServerTLS(certificate=paths["certificate"], key=paths["key"]) if "key" in paths else None
        return msgspec.structs.replace(config, token_file=paths["token"], tls=tls)

    def _end(self) -> None:
        """End the shard at once, if there is one."""
        replay, self._replay = self._replay, None
        if replay is not None:
            replay.close()
            self._access.close()
        if self._process is not None:
            self._process.kill()
        for file in self._files:
            file.close()
        self._files = []


def _with_files(config: ShardConfig, files: RunFiles, place: Path) -> ShardConfig:
    """The config with what it starts from where this node sees it."""
    own = config.restore_from
    paths = (own,) if isinstance(own, str) else own or config.init_from
    here = tuple(str(path) for path in files.here(tuple(Path(path) for path in paths), place))
    if own is None:
        return msgspec.structs.replace(config, init_from=here)
    return msgspec.structs.replace(config, restore_from=here[0] if isinstance(own, str) else here)


def _holds_something(directory: Path) -> bool:
    """Whether a shard began its journal here."""
    return (directory / "base.h5").exists() or any((directory / "journal").glob("*.log"))


def _snapshots(config: ShardConfig) -> Sequence[str]:
    named = config.restore_from or ()
    return (named,) if isinstance(named, str) else named


def _remove_earlier_starts(start: Path) -> None:
    for earlier in start.parent.iterdir() if start.parent.is_dir() else ():
        if earlier.name != start.name:
            shutil.rmtree(earlier, ignore_errors=True)
