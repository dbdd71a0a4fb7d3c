"""Frames: round trips, and garbage refused."""

import struct
from functools import partial

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
from replay_server.placing import Placement, decode_placed, decode_placed_reply, encode_placed, encode_placed_reply

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
        reply = InsertReply(rows, 3, reason, VIEW, turned_away=reason == "samples")
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


def frames():
    """A frame of every kind with what decodes it."""
    placement = Placement(1, 0, 0, 64, 1 << 20)
    sample = SampleRequest(np.array([4, 4]), 8.0, Updates(keys(2), np.ones(2)), 0.1)
    drawn = SampleReply(records(3), keys(3), np.arange(3) / 7, 4, 5, None, VIEW)
    return [
        *((frame, partial(decode, layout=LAYOUT)) for frame, decode in requests()),
        (
            wire.encode_insert_reply(InsertReply(3, 2, None, VIEW), LAYOUT),
            partial(wire.decode_insert_reply, layout=LAYOUT),
        ),
        (wire.encode_sample_reply(drawn, LAYOUT), partial(wire.decode_sample_reply, layout=LAYOUT)),
        (wire.encode_update_reply(UpdateReply(8, 9, VIEW), LAYOUT), partial(wire.decode_update_reply, layout=LAYOUT)),
        (wire.encode_json({"a": [1, {}]}, reply=False), partial(wire.decode_json, reply=False)),
        (
            encode_placed(placement, "replay", wire.encode_sample(sample, LAYOUT)),
            lambda frame: wire.decode_sample(decode_placed(frame, "replay")[1], LAYOUT),
        ),
        (encode_placed_reply(77, "replay"), lambda frame: decode_placed_reply(frame, "replay")),
    ]


@pytest.mark.parametrize("index", range(len(frames())))
@pytest.mark.parametrize("off_by", [-1, 1, 2**40])
def test_a_frame_that_lies_about_its_length_is_refused(index, off_by):
    frame, decode = frames()[index]
    with pytest.raises(InvalidRecord):
        decode(frame[:8] + struct.pack("<Q", len(frame) + off_by) + frame[16:])


def check_decoded(decoded):
    if isinstance(decoded, InsertRequest):
        assert decoded.records.shape[1] == SPEC.record_size
        assert 0.0 <= decoded.wait_s <= 0.5
    if isinstance(decoded, SampleRequest):
        assert wire.reply_bytes(int(decoded.counts.sum()), SPEC) <= wire.MAX_REPLY_BYTES


@pytest.mark.parametrize("index", range(len(frames())))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_frames_are_refused_or_decode_to_what_fits(index, data):
    frame, decode = frames()[index]
    spoiled = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoiled)))
        match data.draw(st.sampled_from(("flip", "number", "cut", "insert", "length"))):
            case "flip" if at < len(spoiled):
                spoiled[at] = data.draw(st.integers(0, 255))
            case "number" if at + 4 <= len(spoiled):
                at -= at % 4
                spoiled[at : at + 4] = struct.pack(
                    "<I", data.draw(st.sampled_from((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))
                )
            case "cut":
                del spoiled[at : at + data.draw(st.integers(0, 40))]
            case "insert":
                spoiled[at:at] = data.draw(st.binary(max_size=40))
            case "length" if len(spoiled) >= 16:
                spoiled[8:16] = struct.pack("<Q", len(spoiled))
    try:
        decoded = decode(bytes(spoiled))
    except (InvalidRecord, SchemaMismatch):
        return
    check_decoded(decoded)


@pytest.mark.parametrize("index", range(len(frames())))
@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200), good=st.booleans())
def test_garbage_is_refused(index, body, good):
    """Random bytes, and random bytes behind a good prefix."""
    frame, decode = frames()[index]
    if good:
        body = frame[:8] + struct.pack("<Q", 32 + len(body)) + frame[16:32] + body
    try:
        decoded = decode(body)
    except (InvalidRecord, SchemaMismatch):
        return
    assert good
    check_decoded(decoded)


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
