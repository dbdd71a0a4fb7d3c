"""The snapshots of some shards make as many others as one likes: the same records, priorities and totals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay_server import CheckpointError, Field, RateLimiter, RecordSpec
from replay_server.messages import InsertRequest, SampleRequest, Stamp, Updates
from replay_server.shard import Shard
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"), Field("x", "float32", (3,))), {"gamma": "0.9"})
LIMITER = RateLimiter(2, 4.0, 1000.0)


def shard_of(index: int, capacity: int, incarnation: int = 1, **settings: Any) -> Shard:
    table = Table(SPEC, capacity, seed=index, shard=index, incarnation=incarnation, **settings)
    return Shard(table, RateLimiter() if table.consuming else LIMITER)


def saved(path: Path, counts: list[int], capacity: int = 40, **settings: Any) -> tuple[list[Shard], list[str]]:
    """Shards that were given so many records each, one at a time in turn, and their files."""
    rng = np.random.default_rng(sum(counts))
    shards = [shard_of(index, capacity, **settings) for index in range(len(counts))]
    for number in range(max(counts)):
        for index, shard in enumerate(shards):
            if number < counts[index]:
                columns = {"number": np.array([10 * number + index]), "x": rng.random((1, 3), np.float32)}
                stamp = Stamp(index, 1, number, opens=True)
                request = InsertRequest(SPEC.pack(columns), rng.random(1), stamp, 0.0)
                assert shard.insert(request).accepted == 1
    for index, shard in enumerate(shards):
        if shard.table.size:
            shard.sample(SampleRequest(np.array([3]), 3.0 + index, Updates(), 0.0))
    paths = [str(path / f"replay-{index}.h5") for index in range(len(counts))]
    for shard, file in zip(shards, paths, strict=True):
        shard.save(file)
    return shards, paths


def contents(shards: list[Shard]) -> list[tuple[bytes, float]]:
    """The slow way: all records with their priorities, in no order."""
    return sorted(
        (shard.table.records[slot].tobytes(), float(shard.table.priorities[slot]))
        for shard in shards
        for slot in shard.table.slots.order()
    )


def totals(shards: list[Shard]) -> tuple[int, float, int]:
    stats = [shard.stats() for shard in shards]
    return sum(s.inserted for s in stats), sum(s.sampled for s in stats), sum(s.fenced for s in stats)


@pytest.mark.parametrize("counts", [[30], [30, 30], [7, 30, 1], [90, 90], [0, 5], [0, 0], [1]])
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_nothing_is_lost_made_up_or_changed(tmp_path: Path, counts: list[int], parts: int) -> None:
    before, paths = saved(tmp_path, counts)
    after = [shard_of(index, 100, incarnation=2) for index in range(parts)]
    for index, shard in enumerate(after):
        shard.restore_share(paths, part=index, parts=parts)
        shard.check_valid()
    assert contents(after) == contents(before)
    assert totals(after) == totals(before)
    sizes = [shard.table.size for shard in after]
    assert max(sizes) - min(sizes) <= 1
    inserted = [shard.stats().inserted for shard in after]
    assert max(inserted) - min(inserted) <= 1


def test_each_share_is_in_order_of_age(tmp_path: Path) -> None:
    _, paths = saved(tmp_path, [30, 30, 30])
    shard = shard_of(1, 60)
    shard.restore_share(paths, part=1, parts=2)
    order = shard.table.slots.order()
    numbers = SPEC.columns(shard.table.records[order])["number"]
    assert set(numbers % 10) == {0, 1, 2}
    np.testing.assert_array_equal(numbers // 10, np.sort(numbers // 10))
    shard.insert(
        InsertRequest(SPEC.pack({"number": np.arange(15, 35), "x": np.zeros((20, 3), np.float32)}), None, None, 0.0)
    )
    left = SPEC.columns(shard.table.records[shard.table.slots.order()])["number"]
    np.testing.assert_array_equal(left[:40], numbers[5:])  # the oldest make room


def test_the_law_goes_on_where_it_was(tmp_path: Path) -> None:
    """Over all shards: as many samples may still be drawn before inserts have to come."""
    before, paths = saved(tmp_path, [20, 30, 40])
    after = [shard_of(index, 100, incarnation=2) for index in range(2)]
    for index, shard in enumerate(after):
        shard.restore_share(paths, part=index, parts=2)
    error = [4.0 * inserted - sampled for inserted, sampled, _ in (totals(before), totals(after))]
    assert error[0] == error[1]
    each = [4.0 * shard.stats().inserted - shard.stats().sampled for shard in after]
    assert abs(each[0] - each[1]) <= 5.0


def test_a_queue_keeps_its_counts_of_draws(tmp_path: Path) -> None:
    settings = {"sampler": "fifo", "priority_exponent": 0.0, "max_times_sampled": 2}
    before, paths = saved(tmp_path, [20, 30], **settings)
    after = [shard_of(index, 60, incarnation=2, **settings) for index in range(3)]
    for index, shard in enumerate(after):
        shard.restore_share(paths, part=index, parts=3)
        shard.check_valid()
    assert contents(after) == contents(before)
    times = [
        sorted(s.table.times_sampled[slot] for s in shards for slot in s.table.slots.order())  # type: ignore[index]
        for shards in (before, after)
    ]
    assert times[0] == times[1] and times[0][-1] == 1


def test_what_cannot_be_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    _, paths = saved(tmp_path, [30, 30])
    for files, capacity, words in [
        (paths, 29, "replay-0.h5 and the others hold 60 records, too many for 2 shards of capacity 29: raise"),
        (paths[::-1], 60, "replay-1.h5: is of shard 1, not 0: a mixed set"),
        ([*paths, str(tmp_path / "replay-2.h5")], 60, "replay-2.h5: no such snapshot"),
    ]:
        shard = shard_of(0, capacity)
        with pytest.raises(CheckpointError, match=words):
            shard.restore_share(files, part=0, parts=2)
        assert shard.table.size == 0 and shard.stats().inserted == 0
    content = bytearray(Path(paths[1]).read_bytes())
    content[len(content) // 2] ^= 1
    Path(paths[1]).write_bytes(content)
    with pytest.raises(CheckpointError, match="replay-1.h5: damaged: its checksum"):
        shard_of(0, 60).restore_share(paths, part=0, parts=2)
    other = Shard(Table(RecordSpec(SPEC.fields, {"gamma": "0.8"}), 60, shard=0))
    with pytest.raises(CheckpointError, match="replay-0.h5: made for another record spec: gamma"):
        other.restore_share(paths, part=0, parts=2)
