"""What is written after a checkpoint's cut, also where shards write to disks that the driver does not see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from distributed.ray_checkpoint import write_cut
from replay_server import Field, RecordSpec, connect, start_server
from replay_server.client import ReplayClient
from replay_server.errors import CheckpointError

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
