"""The entry of the coverage-guided fuzzer, fed with noise and mutated frames: it must hold without atheris too."""

from __future__ import annotations

import numpy as np

from fault.fuzz_decoder import DECODERS, one_input
from fault.records import SPEC, rows
from replay_server import wire
from replay_server.frames import Layout
from replay_server.messages import InsertReply, InsertRequest, SampleRequest, Stamp, UpdateReply, Updates, View


def test_noise_and_mutations_are_understood_or_refused(soak, figures):
    seed, count = 41, soak.count(20_000, 600_000)
    figures.seeds(seed)
    rng = np.random.default_rng(seed)
    layout, view = Layout(SPEC), View(1.0, 2, 3, 4.0)
    good = [
        wire.encode_insert(InsertRequest(SPEC.pack(rows(0, 2)), np.ones(2), Stamp(1, 2, 3), 0.1), layout),
        wire.encode_insert_reply(InsertReply(1, 0, "samples", view), layout),
        wire.encode_sample(SampleRequest(np.array([2, 1]), 3.0, Updates(), 0.1), layout),
        wire.encode_update_reply(UpdateReply(1, 0, view), layout),
        wire.encode_json({"spec": {}, "address": "a", "shard": 1}, reply=True),
    ]
    for _ in range(count):
        data = bytearray(good[int(rng.integers(len(good)))] if rng.random() < 0.9 else rng.bytes(80))
        for _ in range(int(rng.integers(0, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))) :]
        one_input(bytes([int(rng.integers(len(DECODERS)))]) + bytes(data))
    figures.add(inputs=count)
