"""The manifest of a checkpoint: written last, it says which files belong together and what is in them.

Every file is named with its size and a CRC32C in hexadecimal: of all its bytes, or of a replay snapshot the checksum
that it ends with. A snapshot may have many gigabytes; its shard compares content and checksum before it uses any of it,
so that reading it here too would only make every resume wait for the disk twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c

from learners.checkpoint import sync, write_json
from replay_server.errors import CheckpointError
from replay_server.snapshot_file import stated_checksum

MANIFEST = "manifest.json"
_FORMAT = 2
_BLOCK_BYTES = 4 << 20
_SNAPSHOT = ".h5"


def write_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Complete a checkpoint whose other files are all there and on disk."""
    files = {
        str(path.relative_to(directory)): {"bytes": path.stat().st_size, "crc32c": _checksum(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    document = {"format": _FORMAT, **content, "files": files}
    write_json(directory / MANIFEST, {**document, "crc32c": _own_checksum(document)})
    sync(directory)


def read_manifest(directory: Path) -> dict[str, Any]:
    """What `write_manifest` was given, and `files`, each compared with what the manifest says of it.

    Raises:
        CheckpointError: the manifest is unreadable or was changed, or a file is missing, damaged or of another
            checkpoint.
    """
    path = directory / MANIFEST
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        stated, found = document.pop("crc32c", None), document.get("format")
        files: dict[str, dict[str, Any]] = document["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{directory}: no readable {MANIFEST} ({error})") from error
    if found != _FORMAT:
        raise CheckpointError(f"{path}: format {found}, this version reads {_FORMAT}: start the run anew")
    if stated != _own_checksum(document):
        raise CheckpointError(
            f"{path}: damaged or changed by hand: it does not match its own checksum{_remedy(directory)}"
        )
    if directory.stem != str(document["env_steps"]):
        raise CheckpointError(
            f"{directory}: is the checkpoint at {document['env_steps']} under another name: a mixed set"
            f"{_remedy(directory)}"
        )
    for name, file in files.items():
        _check(directory, name, file)
    return document


def _check(directory: Path, name: str, stated: Mapping[str, Any]) -> None:
    path = directory / name
    if not path.is_file():
        raise CheckpointError(f"{directory}: {name} is missing: partial{_remedy(directory)}")
    if (size := path.stat().st_size) != stated["bytes"]:
        raise CheckpointError(f"{path}: {size} bytes, the manifest says {stated['bytes']}: damaged{_remedy(directory)}")
    if (checksum := _checksum(path)) != stated["crc32c"]:
        raise CheckpointError(
            f"{path}: its checksum is {checksum}, the manifest says {stated['crc32c']}: damaged or of another "
            f"checkpoint{_remedy(directory)}"
        )


def _remedy(directory: Path) -> str:
    return f"; remove {directory} to use the checkpoint before it"


def _checksum(path: Path) -> str:
    if path.suffix == _SNAPSHOT:
        return f"{stated_checksum(path):08x}"
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            crc = google_crc32c.extend(crc, block)
    return f"{crc:08x}"


def _own_checksum(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"{google_crc32c.value(text.encode()):08x}"
