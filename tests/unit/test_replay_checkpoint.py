"""A shard's checkpoint: byte for byte, and nothing but its own."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from replay_server import CheckpointError, Field, RateLimiter, RecordSpec
from replay_server.messages import InsertRequest, SampleRequest, Stamp, Updates
from replay_server.shard import Shard
from replay_server.table import Table

SPEC = RecordSpec((Field("number", "int64"), Field("image", "uint8", (3, 2)), Field("flag", "bool")), {"gamma": "0.9"})


def rows(count, start=0):
    numbers = start + np.arange(count)
    return SPEC.pack(
        {"number": numbers, "image": (numbers[:, None, None] + np.zeros((3, 2))).astype(np.uint8), "flag": numbers > 2}
    )


def make(capacity=10, incarnation=1, spec=SPEC, shard=0, exponent=0.6):
    table = Table(spec, capacity, priority_exponent=exponent, seed=3, shard=shard, incarnation=incarnation)
    return Shard(table, RateLimiter(2, 4.0, 300.0))


def ask(rows_):
    return SampleRequest(np.array([rows_]), float(rows_), Updates(), 0.0)


def lived_in(records=rows):
    """A shard with a wrapped ring, cleared slots, updated priorities and writer marks with a hole."""
    shard = make()
    for sequence, count in ((0, 9), (1, 4), (3, 2)):
        shard.insert(InsertRequest(records(count, 10 * sequence), np.linspace(0, 3, count), Stamp(5, 2, sequence), 0.0))
    drawn = shard.sample(ask(8))
    shard.table.update_priorities(drawn.keys[:3], np.array([9.0, 0.1, 2.0]))
    return shard


@pytest.mark.parametrize("cleared", [False, True])
def test_restored_byte_for_byte_with_the_same_draws(tmp_path, cleared):
    shard = lived_in()
    if cleared:
        shard.clear()
        shard.insert(InsertRequest(rows(4), None, None, 0.0))
    path = str(tmp_path / "sub" / "replay-0.h5")
    shard.save(path)
    other = make(incarnation=99)
    other.restore(path, keep_incarnation=True)
    other.check_valid()
    a, b = shard.table.export_state(), other.table.export_state()
    assert a.records.tobytes() == b.records.tobytes()
    assert a.priorities.tobytes() == b.priorities.tobytes()
    assert a.generations.tobytes() == b.generations.tobytes()
    assert a.order.tobytes() == b.order.tobytes()
    assert a.free.tobytes() == b.free.tobytes()
    assert (a.incarnation, a.rng) == (b.incarnation, b.rng)
    since_start = {"drawn": 0, "duplicates": 0, "updated": 0, "stale": 0}
    assert replace(shard.stats(), **since_start) == replace(other.stats(), **since_start)
    for _ in range(3):
        ours, theirs = shard.sample(ask(4)), other.sample(ask(4))
        assert ours.keys.tobytes() == theirs.keys.tobytes()
        assert ours.probabilities.tobytes() == theirs.probabilities.tobytes()
    for sequence, known in ((0, True), (2, False), (3, True), (4, False)):
        request = InsertRequest(rows(1), None, Stamp(5, 2, sequence), 0.0)
        assert (other.insert(request).duplicates == 1) is known


def test_bytes_between_the_fields_survive(tmp_path):
    def noisy(count, start):
        return np.where(rows(count, start) == 0, rows(count, start), rows(count, start)) | padding()

    def padding():
        mask = np.ones(SPEC.record_size, np.uint8) * 7
        for field in SPEC.fields:
            offset = SPEC.record_dtype.fields[field.name][1]
            mask[offset : offset + field.size] = 0
        assert mask.any()
        return mask

    shard = lived_in(noisy)
    shard.save(str(tmp_path / "a.h5"))
    other = make(incarnation=2)
    other.restore(str(tmp_path / "a.h5"))
    assert other.table.export_state().records.tobytes() == shard.table.export_state().records.tobytes()


def test_saving_twice_gives_the_same_file_and_leaves_nothing_else(tmp_path):
    shard = lived_in()
    for name in ("a.h5", "b.h5", "a.h5"):
        shard.save(str(tmp_path / name))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_keys_from_before_a_restore_are_stale(tmp_path):
    shard = lived_in()
    keys = shard.sample(ask(6)).keys
    shard.save(str(tmp_path / "a.h5"))
    other = make(incarnation=2)
    other.restore(str(tmp_path / "a.h5"))
    mass = other.table.mass
    assert other.table.update_priorities(keys, np.full(6, 50.0)) == (0, 6)
    assert other.table.mass == mass
    same = make(incarnation=1)
    with pytest.raises(CheckpointError, match="incarnation"):
        same.restore(str(tmp_path / "a.h5"))
    same.restore(str(tmp_path / "a.h5"), keep_incarnation=True)
    assert same.table.update_priorities(keys, np.full(6, 50.0))[0] == 6


def test_other_programs_can_read_the_columns(tmp_path):
    shard = lived_in()
    shard.save(str(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as file:
        columns = SPEC.columns(shard.table.export_state().records)
        for name in ("number", "image", "flag"):
            np.testing.assert_array_equal(file["columns"][name][()], columns[name])
        assert file["priorities"].shape == (10,)


def test_records_never_inserted_are_not_written(tmp_path):
    shard = make(capacity=500_000)
    shard.insert(InsertRequest(rows(3), None, None, 0.0))
    shard.save(str(tmp_path / "a.h5"))
    assert (tmp_path / "a.h5").stat().st_size < 100_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capacity": 11}, "capacity 10"),
        ({"shard": 1}, "shard 0"),
        ({"exponent": 0.5}, "priority_exponent 0.6"),
        ({"spec": RecordSpec(SPEC.fields, {"gamma": "0.8"})}, "record spec"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(tmp_path, options, words):
    lived_in().save(str(tmp_path / "a.h5"))
    other = make(**options)
    with pytest.raises(CheckpointError, match=words):
        other.restore(str(tmp_path / "a.h5"))
    assert other.stats().size == 0


def test_a_missing_file_or_another_format_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such"):
        make().restore(str(tmp_path / "none.h5"))
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        make().restore(str(tmp_path / "text.h5"))
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(CheckpointError, match="format"):
        make().restore(str(tmp_path / "empty.h5"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f["columns/number"].__setitem__(0, 12345),
        lambda f: f["priorities"].__setitem__(0, 2.5),
        lambda f: f["generations"].__setitem__(0, 9),
        lambda f: f.attrs.__setitem__("inserted", 1),
        lambda f: f["order"].__setitem__(0, 7),
        lambda f: f.__delitem__("columns/image"),
        lambda f: f.__delitem__("rng"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_nothing_changes(tmp_path, spoil):
    path = tmp_path / "a.h5"
    lived_in().save(str(path))
    with h5py.File(path, "r+") as file:
        spoil(file)
    other = make(incarnation=2)
    other.insert(InsertRequest(rows(3), None, None, 0.0))
    before = other.stats()
    with pytest.raises(CheckpointError, match="damaged"):
        other.restore(str(path))
    assert other.stats() == before
    other.check_valid()


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    lived_in().save(str(path))
    content = path.read_bytes()
    for length in range(0, len(content), 397):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            make(incarnation=2).restore(str(path))


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        lived_in().save(str(tmp_path / "file" / "a.h5"))
