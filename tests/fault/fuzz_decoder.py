"""Coverage-guided fuzzing of every decoder a shard and a client let strangers reach, with atheris; not run in CI.

    python -m pip install atheris
    PYTHONPATH=.:tests python -m fault.fuzz_decoder tests/fault/corpus -max_total_time=600

The first byte chooses the decoder, the rest is the frame. Whatever arrives is understood or refused with a
HeadraceError; anything else is a finding, and libFuzzer writes the input that made it into a file `crash-...`.
The directory collects inputs that reached something new and may start empty.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from fault.records import SPEC
from replay_server import wire
from replay_server.attachments import Attachments
from replay_server.documents import hello_from, stats_from
from replay_server.errors import HeadraceError
from replay_server.frames import Layout
from replay_server.placing import decode_placed, decode_placed_reply

_LAYOUT = Layout(SPEC)


def _json_then(read: Callable[[dict[str, object]], object]) -> Callable[[bytes], object]:
    return lambda frame: read(wire.decode_json(frame, reply=True))


def _attach(frame: bytes) -> int:
    """A ticket of this process would open what it names; none that is made here names a descriptor of that kind."""
    return Attachments().attach(wire.decode_json(frame, reply=False))


DECODERS: tuple[Callable[[bytes], object], ...] = (
    partial(wire.decode_insert, layout=_LAYOUT),
    partial(wire.decode_insert_reply, layout=_LAYOUT),
    partial(wire.decode_sample, layout=_LAYOUT),
    partial(wire.decode_sample_reply, layout=_LAYOUT),
    partial(wire.decode_update, layout=_LAYOUT),
    partial(wire.decode_update_reply, layout=_LAYOUT),
    _json_then(hello_from),
    _json_then(stats_from),
    lambda frame: wire.decode_error(frame.decode("utf-8", "replace")),
    partial(decode_placed, table=_LAYOUT.table),
    partial(decode_placed_reply, table=_LAYOUT.table),
    _attach,
)


def one_input(data: bytes) -> None:
    """Hand one input to its decoder; raises what no decoder may raise."""
    if not data:
        return
    try:
        DECODERS[data[0] % len(DECODERS)](data[1:])
    except HeadraceError:
        return


if __name__ == "__main__":
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
