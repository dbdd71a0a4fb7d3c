"""The parts of the model: a shard with its law, and the weight store."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from distributed.scaling.events import Gate, Lane, Shared, Simulation, Steps
from distributed.scaling.system import ServiceTimes, System

_ROOM = 12  # calls of a kind that may wait inside a shard
_WAIT_S = 0.08  # one of them, before it is sent back
_ENDLESS = 1 << 62


@dataclass
class Node:
    """A machine: its processors, its network card, and the newest weights that lie in its memory."""

    cores: Shared
    card: Shared | None
    version: int = 0

    def transfer(self, bytes_: float, latency_s: float) -> Steps:
        """So many bytes through the card; nothing where all is one machine."""
        if self.card is not None:
            yield latency_s
            yield self.card.work(bytes_)


@dataclass(eq=False)
class _Waiting:
    rows: float
    gate: Gate
    let_in: bool = False


@dataclass
class Insert:
    """What became of a chunk: it was stored, or sent back; turned away where nobody else could wait inside."""

    rows: int
    stored: bool = False
    turned_away: bool = False


@dataclass
class Shard:
    """One replay shard: an interpreter that does one thing at a time, and the law that says who may go on.

    Inserts that may not go on wait inside, twelve of them, for a while; one more is turned away, and its actor asks
    again after a pause, which doubles each time. Each such call costs what a call costs.
    """

    simulation: Simulation
    node: Node
    system: System
    times: ServiceTimes
    ahead: bool
    inserted: float = 0.0
    sampled: float = 0.0
    _inserts: deque[_Waiting] = field(default_factory=deque)
    _samples: deque[_Waiting] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.lane = Lane(self.simulation)
        law = self.system.limiter
        self.inserted = float(law.min_size)  # it is full, and one side is as far ahead as the law lets it
        if law.samples_per_insert is not None and law.error_buffer is not None:
            self.sampled = -law.error_buffer if self.ahead else law.error_buffer

    def insert(self, chunk: Insert) -> Steps:
        """Until the chunk is stored or the call sent back."""
        chunk.turned_away = False
        yield from self._serve(self.times.insert_shard.of(chunk.rows))
        if not self._insert_blocked():
            chunk.stored = True
            self._store(chunk.rows)
            return
        if len(self._inserts) >= _ROOM:
            chunk.turned_away = True
            return
        waiting = _Waiting(chunk.rows, Gate(self.simulation))
        self._inserts.append(waiting)
        yield waiting.gate.within(_WAIT_S)
        chunk.stored = waiting.let_in
        if not waiting.let_in:
            self._inserts.remove(waiting)

    def sample(self, rows: float) -> Steps:
        """Until the rows are drawn and paid for; priorities of as many earlier ones come along."""
        yield from self._serve(self.times.sample_shard.of(rows))
        if self._sample_blocked():
            waiting = _Waiting(rows, Gate(self.simulation))
            self._samples.append(waiting)
            yield waiting.gate
        else:
            self._draw(rows)

    def _serve(self, seconds: float) -> Steps:
        yield self.lane
        yield self.node.cores.work(seconds)
        self.lane.leave()

    def _insert_blocked(self) -> bool:
        return self.system.limiter.blocks_insert(_ENDLESS, int(self.inserted), self.sampled, 0) is not None

    def _sample_blocked(self) -> bool:
        return self.system.limiter.blocks_sample(_ENDLESS, int(self.inserted), self.sampled, 0) is not None

    def _store(self, rows: float) -> None:
        self.inserted += rows
        while self._samples and not self._sample_blocked():
            waiting = self._samples.popleft()
            waiting.gate.open_all()
            self._draw(waiting.rows)

    def _draw(self, rows: float) -> None:
        self.sampled += rows
        while self._inserts and not self._insert_blocked():
            waiting = self._inserts.popleft()
            waiting.let_in = True
            waiting.gate.open_all()
            self._store(waiting.rows)


@dataclass
class Store:
    """The weight store: one process that fetches what is newest and tells every actor that asks for newer."""

    simulation: Simulation
    head: Node
    times: ServiceTimes
    version: int = 0

    def __post_init__(self) -> None:
        self.lane = Lane(self.simulation)
        self.newer = Gate(self.simulation)
        self.announced = 0
        self.fetching = False

    def announce(self) -> Steps:
        """There is one version more; it is fetched, with all that came since, when an earlier fetch has ended."""
        self.announced += 1
        if self.fetching:
            return
        self.fetching = True
        while self.version < self.announced:
            newest = self.announced
            yield self.lane
            yield self.head.cores.work(self.times.store_publish_s)
            self.lane.leave()
            self.version = newest
            self.newer.open_all()
        self.fetching = False

    def fetch(self, node: Node, known: int, latency_s: float) -> Steps:
        """Until a version above the known one is in the node's memory: its first actor brings it over the network."""
        while self.version <= known:
            yield self.newer
        if node is not self.head:
            yield latency_s
        yield self.lane
        yield self.head.cores.work(self.times.store_answer_s)
        self.lane.leave()
        if node.version < self.version and node is not self.head:
            node.version = self.version
            yield from self.head.transfer(self.times.weight_bytes, latency_s)
