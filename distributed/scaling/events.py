"""Discrete events: processes are generators that yield what they wait for, resources are shared among them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from heapq import heappop, heappush
from typing import Protocol

Steps = Generator["Wait | float", bool, None]
"""What a process does: it yields seconds to let pass, or something to wait for, and is sent whether that came."""


class Process:
    """A running generator; `turn` tells the resumption that counts from those it has outrun."""

    __slots__ = ("steps", "turn")

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.turn = 0


class Wait(Protocol):
    """Something a process may yield."""

    def begin(self, process: Process) -> None:
        """Take note of who waits; the process is resumed once, later or now."""


class Simulation:
    """The clock, what is due, and how much has happened. Ties go to what was scheduled first: runs repeat exactly."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._due: list[tuple[float, int, Process, int, bool]] = []
        self._count = 0

    def start(self, steps: Steps) -> None:
        """Have a generator run from now on."""
        self.resume(Process(steps), 0.0)

    def resume(self, process: Process, seconds: float, value: bool = True) -> None:
        """Have a process go on after so many seconds, unless something else resumes it before."""
        self._count += 1
        heappush(self._due, (self.now + seconds, self._count, process, process.turn, value))

    def run(self, until: float, most_events: int = 1 << 62) -> None:
        """Let happen what is due before or at this time; no more events than so many, then the clock stands there."""
        for _ in range(most_events):
            if not self._due or self._due[0][0] > until:
                self.now = until
                return
            self.now, _, process, turn, value = heappop(self._due)
            self.events += 1
            if turn != process.turn:
                continue
            process.turn += 1
            self._step(process, value, turn == 0)

    def _step(self, process: Process, value: bool, first: bool) -> None:
        try:
            wanted = next(process.steps) if first else process.steps.send(value)
        except StopIteration:
            return
        if isinstance(wanted, float):
            self.resume(process, wanted)
        else:
            wanted.begin(process)


class Gate:
    """Where processes wait until somebody lets them go on, first come, first served."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._waiting: deque[tuple[Process, int]] = deque()

    def begin(self, process: Process) -> None:
        while self._waiting and self._waiting[0][0].turn != self._waiting[0][1]:
            self._waiting.popleft()  # gave up waiting
        self._waiting.append((process, process.turn))

    def within(self, seconds: float) -> Wait:
        """To be yielded: waits for so long at most; False is sent where nothing came in time."""
        return _Within(self, self._simulation, seconds)

    def open_all(self) -> None:
        """Everybody who waits goes on."""
        while self._waiting:
            process, turn = self._waiting.popleft()
            if turn == process.turn:
                self._simulation.resume(process, 0.0)


class _Within:
    def __init__(self, gate: Gate, simulation: Simulation, seconds: float) -> None:
        self._gate, self._simulation, self._seconds = gate, simulation, seconds

    def begin(self, process: Process) -> None:
        self._gate.begin(process)
        self._simulation.resume(process, self._seconds, False)


class Stopwatch:
    """Seconds between starts and stops, and since a start without its stop yet."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._since: float | None = None
        self._sum = 0.0

    @property
    def running(self) -> bool:
        """Started and not stopped."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._sum + (0.0 if self._since is None else self._simulation.now - self._since)

    def start(self) -> None:
        self._since = self._simulation.now

    def stop(self) -> None:
        self._sum, self._since = self.seconds, None


class Lane:
    """One at a time, first come, first served: yield the lane to enter it, `leave` when done."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._waiting: deque[Process] = deque()
        self.busy = Stopwatch(simulation)

    def begin(self, process: Process) -> None:
        if self.busy.running:
            self._waiting.append(process)
        else:
            self.busy.start()
            self._simulation.resume(process, 0.0)

    def leave(self) -> None:
        self.busy.stop()
        if self._waiting:
            self.begin(self._waiting.popleft())


class Shared:
    """Capacity that all who work share evenly: the cores of a node, the bytes a second of a network card.

    Kept in virtual time: `_given` is what somebody who was always there would have had, so who finishes next is the
    head of a heap.

    Args:
        simulation: the clock.
        capacity: work a second.
        most: what one job can use of it: 1 core, or the whole card.
    """

    def __init__(self, simulation: Simulation, capacity: float, most: float) -> None:
        self._simulation = simulation
        self._capacity, self._most = capacity, most
        self._jobs: list[tuple[float, int, Process]] = []
        self._count = 0
        self._given = self._looked = 0.0
        self._changed = Gate(simulation)
        self.done = 0.0
        simulation.start(self._clerk())

    def work(self, amount: float) -> Wait:
        """To be yielded: resumed when so much is done."""
        return _Job(self, amount)

    def add(self, process: Process, amount: float) -> None:
        self._catch_up()
        self._count += 1
        heappush(self._jobs, (self._given + amount, self._count, process))
        self._changed.open_all()

    def _rate(self) -> float:
        return min(self._most, self._capacity / max(len(self._jobs), 1))

    def _catch_up(self) -> None:
        given = (self._simulation.now - self._looked) * self._rate()
        self._given += given
        self.done += given * len(self._jobs)
        self._looked = self._simulation.now

    def _clerk(self) -> Steps:
        """Sends on whoever has had what they came for."""
        while True:
            if not self._jobs:
                yield self._changed
            elif not (yield self._changed.within(max(self._jobs[0][0] - self._given, 0.0) / self._rate())):
                self._catch_up()
                self._given = self._jobs[0][0]  # without what rounding left over
                self._simulation.resume(heappop(self._jobs)[2], 0.0)


class _Job:
    def __init__(self, shared: Shared, amount: float) -> None:
        self._shared, self._amount = shared, amount

    def begin(self, process: Process) -> None:
        self._shared.add(process, self._amount)


def together(simulation: Simulation, parts: list[Steps]) -> Steps:
    """To be `yield from`-ed: all parts at once, until the last has ended."""
    left, gate = [len(parts)], Gate(simulation)

    def one(part: Steps) -> Steps:
        yield from part
        left[0] -= 1
        if not left[0]:
            gate.open_all()

    for part in parts:
        simulation.start(one(part))
    if parts:
        yield gate
