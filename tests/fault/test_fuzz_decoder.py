"""The entry of the coverage-guided fuzzer, fed with noise and mutated frames: it must hold without atheris too."""

from __future__ import annotations

import dataclasses

import numpy as np

from fault.fuzz_decoder import DECODERS, one_input
from fault.records import SPEC, rows
from replay_server import wire
from replay_server.batches import KEY_DTYPE
from replay_server.documents import hello_document
from replay_server.errors import HeadraceError
from replay_server.frames import Layout
from replay_server.local import hello_of
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
from replay_server.placing import Placement, encode_placed, encode_placed_reply
from replay_server.shard import Shard
from replay_server.table import Table


def good_frames():
    """One for each decoder, in their order, that it understands, but for the last: no such memory is there."""
    layout, view = Layout(SPEC), View(1.0, 2, 3, 4.0)
    records, keys = SPEC.pack(rows(0, 2)), np.zeros(2, KEY_DTYPE)
    updates, shard = Updates(keys, np.ones(2)), Shard(Table(SPEC, 10))
    sample = wire.encode_sample(SampleRequest(np.array([2, 1]), 3.0, updates, 0.1), layout)
    ticket = {"pid": 2**22 + 7, "descriptor": 3, "inode": 4, "size": 1 << 20, "nonce": "00" * 32, "replaces": None}
    return [
        wire.encode_insert(InsertRequest(records, np.ones(2), Stamp(1, 2, 3), 0.1), layout),
        wire.encode_insert_reply(InsertReply(1, 0, "samples", view), layout),
        sample,
        wire.encode_sample_reply(SampleReply(records, keys, np.ones(2), 1, 0, None, view), layout),
        wire.encode_update(UpdateRequest(updates, 1.0), layout),
        wire.encode_update_reply(UpdateReply(1, 0, view), layout),
        wire.encode_json(hello_document(hello_of(shard)), reply=True),
        wire.encode_json(dataclasses.asdict(shard.stats()), reply=True),
        wire.encode_error(HeadraceError("a message")).encode(),
        encode_placed(Placement(5, 0, 0, 4096, 8192), layout.table, sample),
        encode_placed_reply(4096, layout.table),
        wire.encode_json(ticket, reply=False),
    ]


def test_every_decoder_has_a_frame_that_it_understands():
    for decode, frame in zip(DECODERS[:-1], good_frames()[:-1], strict=True):
        decode(frame)
    assert len(good_frames()) == len(DECODERS)


def test_noise_and_mutations_are_understood_or_refused(soak, figures):
    """Most go to the decoder of their kind, so that they get past the look at the kind."""
    seed, count = 41, soak.count(20_000, 600_000)
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    good = good_frames()
    for _ in range(count):
        kind = int(rng.integers(len(DECODERS)))
        decoder = kind if rng.random() < 0.9 else int(rng.integers(len(DECODERS)))
        data = bytearray(good[kind] if rng.random() < 0.95 else rng.bytes(80))
        for _ in range(int(rng.integers(0, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))) :]
        one_input(bytes([decoder]) + bytes(data))
    figures.add(inputs=count)
