"""What is written after a checkpoint's cut, also where shards write to disks that the driver does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from distributed.ray_checkpoint import write_cut
from replay_server import Field, RecordSpec, connect, start_server
from replay_server.client import ReplayClient
from replay_server.errors import CheckpointError
from replay_server.messages import SavedFile

SPEC = RecordSpec((Field("x", "float32", (64,)), Field("number", "int64")))
ARRAYS = {"counters": np.array([3, 4]), "generator": np.arange(9, dtype=np.uint8)}


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[ReplayClient]:
    """The first shard writes where the driver does, the second elsewhere."""
    places = [str(tmp_path / "checkpoints"), str(tmp_path / "another-node")]
    servers = [start_server(SPEC, 50_000, shard_index=i, directory=place) for i, place in enumerate(places)]
    with connect([server.address for server in servers], spec=SPEC) as client:
        for start in range(0, 60_000, 4000):
            columns = {"x": np.ones((4000, 64), np.float32), "number": np.arange(start, start + 4000)}
            client.insert(columns)
        yield client
    for server in servers:
        server.stop()


def test_a_snapshot_on_another_nodes_disk_is_carried_over(replay: ReplayClient, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints" / "500.part"
    directory.mkdir(parents=True)
    replay.begin_save(directory.name)
    write_cut(directory, ARRAYS, replay)
    assert sorted(path.name for path in directory.iterdir()) == ["learner.safetensors", "replay-0.h5", "replay-1.h5"]
    assert (directory / "replay-1.h5").stat().st_size > 5 << 20, "more than one piece"
    assert list((tmp_path / "another-node").iterdir()) == []
    loaded = load_file(directory / "learner.safetensors")
    assert all((loaded[name] == array).all() for name, array in ARRAYS.items())
    with start_server(SPEC, 50_000, shard_index=1, restore_from=str(directory / "replay-1.h5")) as restored:
        assert restored.shard.table.size == replay.stats().shards[1].size > 0


def test_shards_that_run_elsewhere_keep_their_own(tmp_path: Path) -> None:
    write_cut(tmp_path, ARRAYS, None)
    assert [path.name for path in tmp_path.iterdir()] == ["learner.safetensors"]


def test_a_shard_that_was_started_anew_since_the_cut_has_nothing(replay: ReplayClient, tmp_path: Path) -> None:
    directory = tmp_path / "500.part"
    directory.mkdir()
    with pytest.raises(CheckpointError, match="has not begun .*500.part.*started anew"):
        write_cut(directory, ARRAYS, replay)


class Slow:
    """Two shards on a clock that goes on by a minute a look; `told` says what the second has written at a look."""

    def __init__(self, told: Callable[[int], SavedFile]) -> None:
        self.looks = 0
        self._told = told

    def saved(self, directory: str) -> list[SavedFile]:
        self.looks += 1
        assert self.looks < 1000, "for ever"
        return [SavedFile("/x/replay-0.h5", True, 7, 1), self._told(self.looks)]

    def monotonic(self) -> float:
        return 60.0 * self.looks

    def sleep(self, _: float) -> None:
        pass


def test_a_shard_that_writes_nothing_for_long_ends_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck: Any = Slow(lambda look: SavedFile("/x/replay-1.h5", False))
    monkeypatch.setattr("distributed.ray_checkpoint.time", stuck)
    with pytest.raises(CheckpointError, match="shard 1 has not written /x/replay-1.h5 in 1860 s"):
        write_cut(tmp_path, ARRAYS, stuck)


def test_a_shard_that_goes_on_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has nothing more to tell it gets half an hour again."""
    steady: Any = Slow(lambda look: SavedFile("/x/replay-1.h5", look == 120, min(look, 91)))
    monkeypatch.setattr("distributed.ray_checkpoint.time", steady)
    monkeypatch.setattr("distributed.ray_checkpoint._is_here", lambda *_: True)
    write_cut(tmp_path, ARRAYS, steady)
    assert steady.looks == 120
