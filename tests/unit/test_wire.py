"""Frames: round trips, and garbage refused."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay_server import ConfigError, Field, HeadraceError, InvalidRecord, RecordSpec, SchemaMismatch, errors, wire
from replay_server.batches import KEY_DTYPE
from replay_server.frames import Frame, Layout
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
LAYOUT = Layout(SPEC)


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
@pytest.mark.parametrize("stamp", [None, Stamp(2**64 - 1, 2**32 - 1, 2**63), Stamp(1, 2, 3, opens=False)])
@pytest.mark.parametrize("prioritized", [False, True])
def test_insert(rows, stamp, prioritized):
    request = InsertRequest(records(rows), np.arange(rows) * 0.5 if prioritized else None, stamp, 0.25)
    same(request, wire.decode_insert(wire.encode_insert(request, LAYOUT), LAYOUT))
    for reason in (None, "min_size", "inserts", "samples", "snapshot", "bytes"):
        reply = InsertReply(rows, 3, reason, VIEW)
        same(reply, wire.decode_insert_reply(wire.encode_insert_reply(reply, LAYOUT), LAYOUT))


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_sample(rows):
    request = SampleRequest(np.array([rows, 0, 2]), 3.5, Updates(keys(rows), np.arange(rows) * 1.0), 0.5)
    same(request, wire.decode_sample(wire.encode_sample(request, LAYOUT), LAYOUT))
    reply = SampleReply(records(rows), keys(rows), np.arange(rows) / 7, 4, 5, "inserts" if rows == 0 else None, VIEW)
    decoded = wire.decode_sample_reply(wire.encode_sample_reply(reply, LAYOUT), LAYOUT)
    same(reply, decoded)
    assert decoded.records.ctypes.data % 16 == 0


@pytest.mark.parametrize("rows", [1, 5])
def test_a_reply_drawn_in_place_is_the_same_frame(rows):
    reply = SampleReply(records(rows), keys(rows), np.arange(rows) / 7, 4, 5, None, VIEW)
    memory = np.zeros(wire.reply_bytes(rows, SPEC), np.uint8)
    for place, drawn in zip(
        wire.sample_reply_rows(memory, rows, LAYOUT), (reply.records, reply.keys, reply.probabilities), strict=True
    ):
        place[:] = drawn
    wire.finish_sample_reply(memory, reply, LAYOUT)
    assert memory.tobytes() == wire.encode_sample_reply(reply, LAYOUT)


def test_a_frame_is_written_to_memory_as_it_is_sent():
    request = InsertRequest(records(3), np.ones(3), Stamp(1, 2, 3), 0.1)
    frame = wire.insert_frame(request, LAYOUT)
    memory = np.full(frame.length + 7, 9, np.uint8)
    frame.write(memory)
    assert memory.tobytes() == frame.to_bytes() + bytes([9] * 7)


def test_a_frame_for_another_table_is_refused():
    request, _ = requests()[0]
    with pytest.raises(SchemaMismatch, match="table 'replay', not 'other'"):
        wire.decode_insert(request, Layout(SPEC, "other"))
    question = wire.encode_json({}, reply=False)
    assert wire.decode_json(question, reply=False, table="any") == {}
    with pytest.raises(SchemaMismatch, match="table 'one', not 'other'"):
        wire.decode_json(wire.encode_json({}, reply=False, table="one"), reply=False, table="other")
    for name in ("", "seventeen letters", "Bücher"):
        with pytest.raises(ConfigError):
            Layout(SPEC, name)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_update(rows):
    request = UpdateRequest(Updates(keys(rows), np.arange(rows) * 1.0), 2.5)
    same(request, wire.decode_update(wire.encode_update(request, LAYOUT), LAYOUT))
    reply = UpdateReply(8, 9, VIEW)
    same(reply, wire.decode_update_reply(wire.encode_update_reply(reply, LAYOUT), LAYOUT))


def requests():
    return [
        (wire.encode_insert(InsertRequest(records(3), np.ones(3), Stamp(1, 2, 3), 0.1), LAYOUT), wire.decode_insert),
        (
            wire.encode_sample(SampleRequest(np.array([4, 4]), 8.0, Updates(keys(2), np.ones(2)), 0.1), LAYOUT),
            wire.decode_sample,
        ),
        (wire.encode_update(UpdateRequest(Updates(keys(2), np.ones(2)), 1.0), LAYOUT), wire.decode_update),
    ]


@pytest.mark.parametrize("index", range(3))
def test_every_truncation_and_extension_is_refused(index):
    frame, decode = requests()[index]
    for length in range(len(frame)):
        with pytest.raises(HeadraceError):
            decode(frame[:length], LAYOUT)
    with pytest.raises(InvalidRecord):
        decode(frame + b"\0" * 16, LAYOUT)


@pytest.mark.parametrize("index", range(3))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_are_refused_or_decode_to_what_fits(index, data):
    frame, decode = requests()[index]
    spoiled = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(spoiled), LAYOUT)
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
            decode(frame, LAYOUT)
    with pytest.raises(HeadraceError):
        wire.decode_json(frame, reply=False)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"1" * 10_000, b"\xff", b"[]", b"", b'{"a":' * 50_000])
def test_json_that_is_none_is_refused(text):
    frame = Frame("Json", "", b"", np.frombuffer(text, np.uint8)).to_bytes()
    with pytest.raises(InvalidRecord):
        wire.decode_json(frame, reply=False)


def test_another_schema_version_or_kind_is_refused():
    frame, _ = requests()[0]
    with pytest.raises(SchemaMismatch):
        wire.decode_insert(frame, Layout(OTHER))
    with pytest.raises(SchemaMismatch, match="protocol version 3"):
        wire.decode_insert(frame[:4] + struct.pack("<H", 3) + frame[6:], LAYOUT)
    with pytest.raises(InvalidRecord, match="kind"):
        wire.decode_sample(frame, LAYOUT)


def test_a_sample_whose_reply_would_not_fit_is_refused():
    request = SampleRequest(np.array([2**31, 2**31]), 1.0, Updates(), 0.0)
    with pytest.raises(InvalidRecord, match="a message holds"):
        wire.decode_sample(wire.encode_sample(request, LAYOUT), LAYOUT)


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
