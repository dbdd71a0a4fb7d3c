"""Records of snapshots as what another shard starts from."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from replay_server import start_server
from replay_server.errors import CheckpointError, ConfigError
from replay_server.logged import count_records, read_records
from replay_server.messages import InsertRequest
from replay_server.rate_limiter import RateLimiter
from replay_server.shard import Shard
from replay_server.shard_config import ShardConfig, SpecConfig
from replay_server.shard_making import make_shard
from replay_server.specs import Field, RecordSpec
from replay_server.table import Table

FIELDS = (Field("observation", "float32", (3,)), Field("action", "int64"), Field("flag", "bool"))
SPEC = RecordSpec(FIELDS, {"gamma": "0.9"})


def snapshot(path: Path, actions: range, capacity: int = 1000, spec: RecordSpec = SPEC) -> str:
    shard = Shard(Table(spec, capacity, priority_exponent=0.6, seed=0, shard=3, incarnation=5))
    columns = {f.name: np.zeros((len(actions), *f.shape), f.numpy_dtype) for f in spec.fields}
    columns["action"] = np.array(actions)
    columns["observation"][:, 1] = np.array(actions) / 4
    shard.table.insert(spec.pack(columns), np.linspace(1.0, 9.0, len(actions)))
    shard.save(str(path))
    return str(path)


def actions_of(paths: list[str], spec: RecordSpec = SPEC, **share: int) -> list[int]:
    rows = [spec.columns(np.ascontiguousarray(r))["action"] for r in read_records(paths, spec, **share)]
    return np.concatenate(rows).tolist()


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_every_record_is_in_exactly_one_share_in_order(tmp_path: Path, parts: int, monkeypatch) -> None:
    monkeypatch.setattr("replay_server.snapshot_file._BLOCK_BYTES", 10 * SPEC.record_size)  # blocks of 10 records
    files = [snapshot(tmp_path / "a.h5", range(33)), snapshot(tmp_path / "b.h5", range(33, 50))]
    assert [count_records(file, SPEC) for file in files] == [33, 17]
    shares = [actions_of(files, part=part, parts=parts) for part in range(parts)]
    assert shares == [list(range(part, 50, parts)) for part in range(parts)]


def test_what_a_full_ring_holds_comes_oldest_first(tmp_path: Path) -> None:
    shard = Shard(Table(SPEC, 8, priority_exponent=0.6, seed=0, shard=0, incarnation=1))
    for number in range(13):
        columns = {"observation": np.zeros((1, 3), np.float32), "action": np.array([number]), "flag": np.ones(1, bool)}
        shard.table.insert(SPEC.pack(columns))
    shard.save(str(tmp_path / "ring.h5"))
    assert actions_of([str(tmp_path / "ring.h5")]) == list(range(5, 13))


def test_columns_that_only_the_file_has_are_left_out(tmp_path: Path) -> None:
    narrow = RecordSpec((FIELDS[1], FIELDS[0]), {"gamma": "0.9"})
    file = snapshot(tmp_path / "a.h5", range(5))
    [rows] = read_records([file], narrow)
    assert narrow.columns(rows)["observation"][:, 1].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        (RecordSpec(FIELDS, {"gamma": "0.99"}), "holds other records: gamma is 0.9 there, 0.99 here"),
        (RecordSpec(FIELDS, {"gamma": "0.9", "n_step": "3"}), "n_step is None there, 3 here"),
        (RecordSpec((*FIELDS, Field("slate", "int64")), SPEC.semantics), "no column slate there"),
        (
            RecordSpec((Field("observation", "float32", (4,)), *FIELDS[1:]), SPEC.semantics),
            r"column observation is float32\[3\] there, float32\[4\] here",
        ),
    ],
)
def test_other_records_are_refused_with_the_difference(tmp_path: Path, ours: RecordSpec, says: str) -> None:
    file = snapshot(tmp_path / "a.h5", range(5))
    with pytest.raises(CheckpointError, match=f"a.h5: .*{says}"):
        count_records(file, ours)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none.h5: no such file"):
        count_records(str(tmp_path / "none.h5"), SPEC)
    file = Path(snapshot(tmp_path / "a.h5", range(500)))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a.h5: damaged: its checksum"):
        count_records(str(file), SPEC)
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"a.h5: cut off"):
        count_records(str(file), SPEC)


def test_a_shard_starts_with_its_share_and_counts_nothing_as_inserted(tmp_path: Path) -> None:
    files = (snapshot(tmp_path / "a.h5", range(10)), snapshot(tmp_path / "b.h5", range(10, 25)))
    settings = {"capacity": 20, "init_from": files, "init_shards": 2, "shard_index": 1}
    shard = make_shard(msgspec.convert({"spec": SpecConfig.of(SPEC), **settings}, ShardConfig)).shard
    stats = shard.stats()
    assert (stats.size, stats.inserted, stats.sampled) == (12, 0, 0.0)
    assert sorted(SPEC.columns(shard.table.records[:12])["action"]) == list(range(1, 25, 2))
    assert set(shard.table.priorities[:12]) == {1.0}
    shard.check_valid()
    with pytest.raises(ConfigError, match=r"init_from: holds more records than the shard's capacity of 11"):
        start_server(SPEC, 11, init_from=files, init_shards=2)


def test_a_durable_shard_starts_with_its_share_once_and_keeps_it(tmp_path: Path) -> None:
    settings = {"capacity": 20, "durability": "journal", "directory": str(tmp_path / "shard")}
    again = msgspec.convert({"spec": SpecConfig.of(SPEC), **settings}, ShardConfig)
    first = msgspec.structs.replace(again, init_from=(snapshot(tmp_path / "a.h5", range(10)),))
    made = make_shard(first).shard
    row = {"observation": np.zeros((1, 3), np.float32), "action": np.array([77]), "flag": np.array([True])}
    made.insert(InsertRequest(SPEC.pack(row), None, None, 0.0))
    made.close()
    with pytest.raises(ConfigError, match="init_from: the journal of this shard holds data already"):
        make_shard(first)
    recovered = make_shard(again).shard
    held = SPEC.columns(recovered.table.records[recovered.table.slots.holding()])["action"]
    assert sorted(held) == [*range(10), 77]
    assert recovered.stats().inserted == 1
    recovered.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"restore_from": "b.h5"}, "init_from contradicts restore_from"),
        ({"shard_index": 2, "init_shards": 2}, r"shard_index \(2\) must be below init_shards \(2\)"),
    ],
)
def test_contradictions_are_refused(settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        start_server(SPEC, 20, init_from=("a.h5",), rate_limiter=RateLimiter(), **settings)
