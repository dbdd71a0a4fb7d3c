"""Files of the driver's node on nodes that do not see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from distributed import run_files
from distributed.run_files import FileReader, RunFiles
from distributed.shard_host import _with_files
from replay_server import Field, RecordSpec
from replay_server.shard_config import ShardConfig, SpecConfig

SPEC = SpecConfig.of(RecordSpec((Field("x", "float32"),)))


class FarReader:
    """A reader of a disk on which everything lies under another directory, called as Ray calls."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self.read = self

    def remote(self, path: Path, offset: int) -> bytes:
        return FileReader().read(self._disk / path.relative_to("/runs"), offset)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFiles:
    for name in ("1/replay-0.h5", "1/replay-1.h5", "log/replay-0.h5"):
        (tmp_path / "far" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "far" / name).write_bytes(name.encode() * 100)
    monkeypatch.setattr(ray, "get", lambda call, timeout: call)
    monkeypatch.setattr(run_files, "_PIECE_BYTES", 64)
    return RunFiles(FarReader(tmp_path / "far"))


def test_what_is_seen_is_used_and_what_is_not_is_fetched_in_pieces(files: RunFiles, tmp_path: Path) -> None:
    (near := tmp_path / "near.h5").write_bytes(b"near")
    place = tmp_path / "fetched"
    (place / "old").mkdir(parents=True)
    paths = (near, Path("/runs/1/replay-0.h5"), Path("/runs/log/replay-0.h5"))
    here = files.here(paths, place)
    assert here[0] == near and all(path.is_relative_to(place) for path in here[1:])
    assert [path.read_bytes() for path in here[1:]] == [b"1/replay-0.h5" * 100, b"log/replay-0.h5" * 100]
    assert not (place / "old").exists()
    nowhere = Path("/runs/1/replay-7.h5")
    assert files.here((nowhere,), place) == (nowhere,), "whoever opens it says so"
    assert RunFiles().here(paths, place) == paths, "where every process is on the driver's node"


@pytest.mark.parametrize("own", ["/runs/1/replay-0.h5", ("/runs/1/replay-0.h5", "/runs/1/replay-1.h5"), None])
def test_a_shard_starts_from_what_was_fetched(files: RunFiles, tmp_path: Path, own: Any) -> None:
    init_from = () if own else ("/runs/log/replay-0.h5",)
    config = ShardConfig(spec=SPEC, capacity=9, restore_from=own, init_from=init_from)
    changed = _with_files(config, files, tmp_path / "fetched")
    names = [
        Path(name).name for name in ([changed.restore_from] if isinstance(own, str) else changed.restore_from or ())
    ]
    assert names == ([] if own is None else ["replay-0.h5"] if isinstance(own, str) else ["replay-0.h5", "replay-1.h5"])
    assert isinstance(changed.restore_from, type(own))
    assert [Path(name).read_bytes() for name in changed.init_from] == [b"log/replay-0.h5" * 100] * len(init_from)
