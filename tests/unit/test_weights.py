"""Weight snapshots: bytes and manifest."""

from __future__ import annotations

import numpy as np

from learners.weights import WeightSlot, WeightSnapshot


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(3, 5)).astype(np.float32),
        "b": np.array(7, np.int64),
        "c": rng.normal(size=(2, 3, 1)),
    }


def test_a_snapshot_gives_back_what_went_in() -> None:
    snapshot = WeightSnapshot.of(4, arrays())
    assert snapshot.version == 4
    assert all(entry.offset % 16 == 0 for entry in snapshot.manifest)
    for name, array in snapshot.arrays().items():
        assert array.dtype == arrays()[name].dtype
        assert np.array_equal(array, arrays()[name])


def test_a_snapshot_is_a_copy() -> None:
    source = {"a": np.zeros(4, np.float32)}
    snapshot = WeightSnapshot.of(1, source)
    source["a"][:] = 1.0
    assert not snapshot.arrays()["a"].any()


def test_a_slot_gives_only_what_is_newer() -> None:
    slot = WeightSlot()
    assert slot.latest(0) is None
    slot.publish(WeightSnapshot.of(1, arrays()))
    slot.publish(WeightSnapshot.of(2, arrays()))
    assert slot.latest(2) is None
    newest = slot.latest(0)
    assert newest is not None and newest.version == 2
