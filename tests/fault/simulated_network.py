"""Shards as simulated clients see them: frames that are late, lost, sent twice, or answered to nobody."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from fault.simulated_time import Scheduler
from replay_server import wire
from replay_server.documents import hello_from, stats_from
from replay_server.errors import HeadraceError, ReplayTimeout, Unavailable
from replay_server.frames import Layout
from replay_server.messages import (
    Call,
    Hello,
    InsertReply,
    InsertRequest,
    SampleReply,
    SampleRequest,
    UpdateReply,
    UpdateRequest,
    View,
)
from replay_server.replay import ShardStats

Reply = TypeVar("Reply")
Respond = Callable[[bytes | HeadraceError], None]
_NOTICED_S = 8.0
"""Keepalive: after so long a call on a dead connection fails."""


class FrameServer(Protocol):
    """What listens at the other end."""

    def receive(self, method: str, frame: bytes, respond: Respond) -> None:
        """Handle a frame and answer, once, now or later; never at all when the server dies first."""


class Network:
    """The weather between all clients and one shard. Attributes are what a nemesis changes.

    Attributes:
        delay_s: mean of one way; one frame in twenty takes ten times as long.
        loss: probability that a frame is lost, each way.
        twice: probability that an insert arrives twice (a late retry of an earlier connection).
        to_shard, to_client: frames pass at all.
        up: somebody listens.
    """

    def __init__(self, scheduler: Scheduler, rng: np.random.Generator) -> None:
        self.scheduler = scheduler
        self._rng = rng
        self.delay_s = 0.002
        self.loss = 0.0
        self.twice = 0.0
        self.to_shard = self.to_client = self.up = True
        self.server: FrameServer | None = None
        self._under_way: list[SimulatedCall[Any]] = []

    def call(self, method: str, frame: bytes, decode: Callable[[bytes], Reply]) -> SimulatedCall[Reply]:
        call = SimulatedCall(self.scheduler, decode)
        self._under_way = [c for c in self._under_way if not c.done()]
        self._under_way.append(call)
        copies = 2 if method == "Insert" and self._rng.random() < self.twice else 1
        lost = [not self.to_shard or self._rng.random() < self.loss for _ in range(copies)]
        if lost[0]:
            self.scheduler.at(_NOTICED_S, lambda: call.end(Unavailable("simulated: the connection is dead")))
        for copy, is_lost in enumerate(lost):
            if not is_lost:
                self.scheduler.at(self._delay(), lambda first=copy == 0: self._arrive(method, frame, call, first))
        return call

    def died(self) -> None:
        """The server's process is gone: whoever waits for it hears so soon."""
        self.up, self.server = False, None
        for call in self._under_way:
            self.scheduler.at(self._delay(), lambda call=call: call.end(Unavailable("simulated: connection reset")))
        self._under_way = []

    def _arrive(self, method: str, frame: bytes, call: SimulatedCall[Any], answered: bool) -> None:
        if not self.up or self.server is None:
            self.scheduler.at(self._delay(), lambda: call.end(Unavailable("simulated: connection refused")))
            return
        self.server.receive(method, frame, lambda answer: self._answer(call, answer) if answered else None)

    def _answer(self, call: SimulatedCall[Any], answer: bytes | HeadraceError) -> None:
        if not self.to_client or self._rng.random() < self.loss:
            self.scheduler.at(_NOTICED_S, lambda: call.end(Unavailable("simulated: the connection is dead")))
        else:
            self.scheduler.at(self._delay(), lambda: call.end(answer))

    def _delay(self) -> float:
        slow = 10.0 if self._rng.random() < 0.05 else 1.0
        return float(self._rng.exponential(self.delay_s * slow))


class SimulatedCall(Generic[Reply]):
    """A call under way; its waits run in simulated time."""

    def __init__(self, scheduler: Scheduler, decode: Callable[[bytes], Reply]) -> None:
        self._scheduler = scheduler
        self._decode = decode
        self._answer: bytes | HeadraceError | None = None
        self._wakes: list[Callable[[], None]] = []

    def end(self, answer: bytes | HeadraceError) -> None:
        """The first answer counts."""
        if self._answer is None:
            self._answer = answer
            for wake in self._wakes:
                wake()

    def done(self) -> bool:
        return self._answer is not None

    def result(self, timeout_s: float) -> Reply:
        if self._answer is None and timeout_s > 0.0:
            self._scheduler.wait(self._wakes.append, self._scheduler.now() + timeout_s)
        if self._answer is None:
            raise ReplayTimeout("simulated: no answer yet", "reply")
        if isinstance(self._answer, HeadraceError):
            raise self._answer
        return self._decode(self._answer)


class SimulatedPort:
    """Implements `ShardPort` over a simulated network, with the real frames."""

    synchronous = False
    transport = "simulated"

    def __init__(self, hello: Hello, network: Network) -> None:
        self._network = network
        self.adopt(hello)

    def insert(self, request: InsertRequest) -> Call[InsertReply]:
        decode = partial(wire.decode_insert_reply, layout=self._layout)
        return self._network.call("Insert", wire.encode_insert(request, self._layout), decode)

    def sample(self, request: SampleRequest) -> Call[SampleReply]:
        decode = partial(wire.decode_sample_reply, layout=self._layout)
        return self._network.call("Sample", wire.encode_sample(request, self._layout), decode)

    def update(self, request: UpdateRequest) -> Call[UpdateReply]:
        decode = partial(wire.decode_update_reply, layout=self._layout)
        return self._network.call("Update", wire.encode_update(request, self._layout), decode)

    def greet(self) -> Call[Hello]:
        frame = wire.encode_json({}, reply=False)
        return self._network.call("Hello", frame, lambda reply: hello_from(wire.decode_json(reply, reply=True)))

    def adopt(self, hello: Hello) -> None:
        self.hello = hello
        self._layout = Layout(hello.spec, hello.table)

    def stats(self) -> Call[ShardStats]:
        frame = wire.encode_json({}, reply=False)
        return self._network.call("Stats", frame, lambda reply: stats_from(wire.decode_json(reply, reply=True)))

    def clear(self) -> View:
        raise NotImplementedError

    def save(self, directory: str) -> str:
        raise NotImplementedError

    def close(self) -> None:
        """The network belongs to the simulation."""
