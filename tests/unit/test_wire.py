"""Frames: round trips, and garbage refused."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay_server import Field, HeadraceError, InvalidRecord, RecordSpec, SchemaMismatch, errors, wire
from replay_server.batches import KEY_DTYPE
from replay_server.messages import (
    InsertReply,
    InsertRequest,
    SampleReply,
    SampleRequest,
    Stamp,
    UpdateReply,
    UpdateRequest,
    Updates,
    View,
)

SPEC = RecordSpec((Field("number", "int64"), Field("value", "float32", (3,))))
OTHER = RecordSpec((Field("number", "int64"), Field("value", "float32", (4,))))
VIEW = View(1.5, 2, 3, 4.25)
SCHEMA = wire.schema_of(SPEC)


def records(rows):
    return SPEC.pack({"number": np.arange(rows), "value": np.ones((rows, 3), np.float32)})


def keys(rows):
    made = np.zeros(rows, KEY_DTYPE)
    made["slot"] = np.arange(rows)
    made["generation"] = 2**32 - 1
    return made


def same(a, b):
    for name in a.__dataclass_fields__:
        mine, other = getattr(a, name), getattr(b, name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, other)
            assert mine.shape == other.shape
        elif isinstance(mine, Updates):
            same(mine, other)
        else:
            assert mine == other


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("stamp", [None, Stamp(2**64 - 1, 2**32 - 1, 2**63)])
@pytest.mark.parametrize("prioritized", [False, True])
def test_insert(rows, stamp, prioritized):
    request = InsertRequest(records(rows), np.arange(rows) * 0.5 if prioritized else None, stamp, 0.25)
    same(request, wire.decode_insert(wire.encode_insert(request, SCHEMA), SPEC))
    for reason in (None, "min_size", "inserts", "samples"):
        reply = InsertReply(rows, 3, reason, VIEW)
        same(reply, wire.decode_insert_reply(wire.encode_insert_reply(reply)))


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_sample(rows):
    request = SampleRequest(np.array([rows, 0, 2]), 3.5, Updates(keys(rows), np.arange(rows) * 1.0), 0.5)
    same(request, wire.decode_sample(wire.encode_sample(request, SCHEMA), SPEC))
    reply = SampleReply(records(rows), keys(rows), np.arange(rows) / 7, 4, 5, "inserts" if rows == 0 else None, VIEW)
    decoded = wire.decode_sample_reply(wire.encode_sample_reply(reply))
    same(reply, decoded)
    assert decoded.records.ctypes.data % 16 == 0


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_update(rows):
    request = UpdateRequest(Updates(keys(rows), np.arange(rows) * 1.0), 2.5)
    same(request, wire.decode_update(wire.encode_update(request, SCHEMA), SPEC))
    reply = UpdateReply(8, 9, VIEW)
    same(reply, wire.decode_update_reply(wire.encode_update_reply(reply)))


def requests():
    return [
        (wire.encode_insert(InsertRequest(records(3), np.ones(3), Stamp(1, 2, 3), 0.1), SCHEMA), wire.decode_insert),
        (
            wire.encode_sample(SampleRequest(np.array([4, 4]), 8.0, Updates(keys(2), np.ones(2)), 0.1), SCHEMA),
            wire.decode_sample,
        ),
        (wire.encode_update(UpdateRequest(Updates(keys(2), np.ones(2)), 1.0), SCHEMA), wire.decode_update),
    ]


@pytest.mark.parametrize("index", range(3))
def test_every_truncation_and_extension_is_refused(index):
    frame, decode = requests()[index]
    for length in range(len(frame)):
        with pytest.raises(HeadraceError):
            decode(frame[:length], SPEC)
    with pytest.raises(InvalidRecord):
        decode(frame + b"\0" * 16, SPEC)


@pytest.mark.parametrize("index", range(3))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_are_refused_or_decode_to_what_fits(index, data):
    frame, decode = requests()[index]
    spoiled = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(spoiled), SPEC)
    except HeadraceError:
        return
    assert len(spoiled) == len(frame)
    if isinstance(decoded, InsertRequest):
        assert decoded.records.shape[1] == SPEC.record_size
        assert 0.0 <= decoded.wait_s <= 0.5


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused(frame):
    for decode in (wire.decode_insert, wire.decode_sample, wire.decode_update):
        with pytest.raises(HeadraceError):
            decode(frame, SPEC)
    with pytest.raises(HeadraceError):
        wire.decode_json(frame, reply=False)


def test_another_schema_version_or_kind_is_refused():
    frame, _ = requests()[0]
    with pytest.raises(SchemaMismatch):
        wire.decode_insert(frame, OTHER)
    with pytest.raises(SchemaMismatch, match="protocol version 2"):
        wire.decode_insert(frame[:4] + struct.pack("<H", 2) + frame[6:], SPEC)
    with pytest.raises(InvalidRecord, match="kind"):
        wire.decode_sample(frame, SPEC)


def test_a_sample_whose_reply_would_not_fit_is_refused():
    request = SampleRequest(np.array([2**31, 2**31]), 1.0, Updates(), 0.0)
    with pytest.raises(InvalidRecord, match="a message holds"):
        wire.decode_sample(wire.encode_sample(request, SCHEMA), SPEC)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRecord("a"),
        errors.StaleEpoch("b"),
        errors.ReplayTimeout("c", "min_size"),
        errors.CheckpointError("d"),
    ],
)
def test_errors_keep_their_type_and_text(error):
    back = wire.decode_error(wire.encode_error(error))
    assert (type(back), str(back)) == (type(error), str(error))
    assert getattr(back, "blocked_on", None) == getattr(error, "blocked_on", None)


@pytest.mark.parametrize("text", ["", "Connection refused", "{}", '{"error": "exit"}', '{"error": "np"}', "[1]", '"x"'])
def test_other_texts_are_not_taken_for_errors(text):
    assert wire.decode_error(text) is None
