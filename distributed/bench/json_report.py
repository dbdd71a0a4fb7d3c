"""What a benchmark measured, as a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Self

import msgspec
from msgspec import Struct

from replay_server.errors import ConfigError


class JsonReport(Struct, frozen=True):
    """Everything a run of one benchmark measured; `origin` is the command that writes it."""

    origin: ClassVar[str]

    def write(self, file: Path) -> None:
        """As JSON for people and programs."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises ConfigError when the file is not such a report."""
        try:
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except OSError as error:
            raise ConfigError(f"{file}: cannot read it: {error.strerror}; check the path") from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{file}: not what {cls.origin} --json wrote: {error}") from None


def check_writable(file: Path | None) -> None:
    """Raises ConfigError when a report cannot be written there: before minutes are spent on it."""
    if file is None:
        return
    parent = file.absolute().parent
    if file.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"--json: {file}: cannot be written; name a file in a directory that exists")
