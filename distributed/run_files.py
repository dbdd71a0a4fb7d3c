"""Files of the driver's node for processes on nodes that do not see its disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from replay_server.errors import CheckpointError

_PIECE_BYTES = 16 << 20
_PIECE_SECONDS = 120.0  # its process may still be starting


class FileReader:
    """Reads files on the driver's node, as a Ray actor: whoever reaches that may run any code there anyway."""

    def read(self, path: Path, offset: int) -> bytes:
        """A piece of a file; empty at its end.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(_PIECE_BYTES)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read on the driver's node: {error.strerror}") from error


@dataclass(frozen=True)
class RunFiles:
    """How a process on any node gets at the files of its run; to be handed out to it.

    Attributes:
        reader: a `FileReader` on the driver's node; None where every process is there.
    """

    reader: Any = None

    def here(self, paths: tuple[Path, ...], place: Path) -> tuple[Path, ...]:
        """The files where this node sees them, else copies in a directory, which is emptied first.

        One that the driver's node has not either keeps its path: whoever opens it says so.

        Args:
            paths: of the files on the driver's node.
            place: directory for copies.
        """
        shutil.rmtree(place, ignore_errors=True)
        return tuple(
            path if self.reader is None or path.is_file() else self._fetch(path, place / str(number))
            for number, path in enumerate(paths)
        )

    def _fetch(self, path: Path, place: Path) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        copy, offset = place / path.name, 0
        try:
            with copy.open("wb") as file:
                while piece := ray.get(self.reader.read.remote(path, offset), timeout=_PIECE_SECONDS):
                    offset += file.write(piece)
        except CheckpointError:
            return path
        return copy
