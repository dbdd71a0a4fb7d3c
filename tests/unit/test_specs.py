"""Record layout: alignment, packing, digests."""

import pickle

import numpy as np
import pytest

from replay_server import Field, InvalidRecord, RecordSpec, SchemaMismatch, transition_spec

SPEC = RecordSpec(
    (Field("flag", "bool"), Field("wide", "float32", (5,)), Field("count", "int64"), Field("half", "float16", (3,))),
    {"gamma": "0.99"},
)


def columns(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "flag": rng.random(rows) < 0.5,
        "wide": rng.random((rows, 5), dtype=np.float32),
        "count": rng.integers(-9, 9, rows),
        "half": rng.random((rows, 3)).astype(np.float16),
    }


def test_pack_then_columns_gives_back_the_values_without_a_copy():
    given = columns(7)
    records = SPEC.pack(given)
    views = SPEC.columns(records)
    assert records.shape == (7, SPEC.record_size)
    for name, column in given.items():
        np.testing.assert_array_equal(views[name], column)
        assert views[name].dtype == column.dtype
        assert np.shares_memory(views[name], records)


def test_offsets_are_aligned_and_fields_do_not_overlap():
    used = np.zeros(SPEC.record_size, int)
    for field in SPEC.fields:
        offset = SPEC.record_dtype.fields[field.name][1]
        assert offset % (16 if field.size >= 16 else field.numpy_dtype.itemsize) == 0
        used[offset : offset + field.size] += 1
    assert used.max() == 1
    assert SPEC.record_size % 16 == 0


def test_padding_is_zero():
    given = {name: np.full_like(column, 1) for name, column in columns(3).items()}
    holes = np.ones(SPEC.record_size, bool)
    for field in SPEC.fields:
        offset = SPEC.record_dtype.fields[field.name][1]
        holes[offset : offset + field.size] = False
    assert holes.any()
    assert not SPEC.pack(given)[:, holes].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("count"), "missing.*count"),
        (lambda c: c.update(more=c["count"]), "unknown.*more"),
        (lambda c: c.update(count=c["count"].astype(np.int32)), "count.*int32"),
        (lambda c: c.update(wide=c["wide"][:, :4]), "wide.*shape"),
        (lambda c: c.update(wide=c["wide"][:2]), "wide.*shape"),
    ],
)
def test_pack_refuses(change, words):
    given = columns(4)
    change(given)
    with pytest.raises(InvalidRecord, match=words):
        SPEC.pack(given)


@pytest.mark.parametrize("records", [np.zeros((2, 8), np.uint8), np.zeros(SPEC.record_size, np.uint8)])
def test_columns_refuse_records_of_another_size(records):
    with pytest.raises(InvalidRecord):
        SPEC.columns(records)


def test_digest_covers_fields_order_and_semantics_and_survives_json_and_pickle():
    same = RecordSpec(SPEC.fields, {"gamma": "0.99"})
    others = [
        RecordSpec(SPEC.fields, {"gamma": "0.9"}),
        RecordSpec(SPEC.fields[::-1], {"gamma": "0.99"}),
        RecordSpec((*SPEC.fields[:-1], Field("half", "float16", (4,))), {"gamma": "0.99"}),
    ]
    assert same == SPEC == RecordSpec.from_json(SPEC.to_json()) == pickle.loads(pickle.dumps(SPEC))  # noqa: S301
    assert len({SPEC.digest, *(o.digest for o in others)}) == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field("not a name", "float32"),
        lambda: Field("x", "no-dtype"),
        lambda: Field("x", "object"),
        lambda: Field("x", "complex64"),
        lambda: Field("x", "float32", (0,)),
        lambda: RecordSpec(()),
        lambda: RecordSpec((Field("x", "int8"), Field("x", "int8"))),
        lambda: RecordSpec.from_json("[]"),
        lambda: RecordSpec.from_json("{"),
    ],
)
def test_impossible_specs_are_refused(make):
    with pytest.raises(SchemaMismatch):
        make()


def test_transition_spec_of_eight_floats():
    spec = transition_spec(("float32", (8,)), ("int64", ()), {"gamma": "0.99"})
    assert [f.name for f in spec.fields] == [
        "observation",
        "next_observation",
        "action",
        "reward",
        "discount",
        "behaviour_log_prob",
        "policy_version",
    ]
    assert spec.record_size == 96


def test_a_value_too_large_to_be_meant_is_refused():
    with pytest.raises(SchemaMismatch, match="more than"):
        Field("x", "float32", (100_000_000_000,))
