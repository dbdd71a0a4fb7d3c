"""The shards of a replay as one client knows them: which answer, what they last said, what waits to be told to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE
from replay_server.clock import Clock
from replay_server.errors import (
    ConfigError,
    HeadraceError,
    InvalidRecord,
    ReplayTimeout,
    SchemaMismatch,
    Unauthenticated,
    Unavailable,
)
from replay_server.messages import Call, Hello, Reply, ShardPort, View
from replay_server.sharding import ShardViews
from replay_server.specs import RecordSpec, check_same_spec
from replay_server.update_queue import UpdateQueue

SILENCE_S = 3.0
"""A shard that has not answered for so long, beyond what it may hold a call, is left out."""

_LAST_LOOK_S = 0.2
"""A client that was itself stopped finds answers late: it looks once more before it leaves a shard out."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_GREETING_S = 2.0
_PROBATION_S = 10.0
_POLL_S = 0.02

_LEAVES_OUT = (Unavailable, SchemaMismatch, Unauthenticated)


@dataclass(eq=False)
class Asked(Generic[Reply]):
    """A call to a shard.

    Attributes:
        position: of the shard among the members.
        life: of the shard, as `Members.life` counted it.
        call: under way.
        sent: when, in the clock's seconds.
        held_s: how long the shard may hold it.
        overdue: when it was first looked for in vain after the shard should have answered.
    """

    position: int
    life: int
    call: Call[Reply]
    sent: float
    held_s: float
    overdue: float | None = None


@dataclass
class _Absence:
    """A shard that is left out, and when it is asked next who is there."""

    reason: str
    next_try: float
    greeting: Call[Hello] | None = None
    greeted: float = 0.0


class _Failed:
    """A call that could not even be made."""

    def __init__(self, error: HeadraceError) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def result(self, timeout_s: float) -> Any:
        raise self._error


class Members:
    """Shards by position, in the order of their indices; those added later at the end.

    A shard in this process is always there. Any other that is unavailable, or silent for too long, is left out: nothing
    is asked of it, and what it last said is forgotten. It is asked who it is, without waiting and with growing pauses
    from 0.1 to 2 s, and comes back when it answers as the same shard with the same records; under a new incarnation the
    updates queued for it are dropped.

    Args:
        ports: one or more.
        clock: of waits.

    Raises:
        ConfigError: no shard, a shard twice, or shards that sample by different rules.
        SchemaMismatch: the shards do not hold the same records.
    """

    def __init__(self, ports: Sequence[ShardPort], clock: Clock) -> None:
        if not ports:
            raise ConfigError("a replay needs at least one shard")
        self.ports = sorted(ports, key=lambda port: port.hello.shard)
        indices = [port.hello.shard for port in self.ports]
        if len(set(indices)) < len(indices):
            raise ConfigError(f"shard indices {indices} are not all different; give every shard its own")
        for port in self.ports[1:]:
            self._check_alike(port.hello)
        self.views = ShardViews([port.hello.min_size for port in self.ports])
        self.updates = UpdateQueue(indices)
        self.life = [0] * len(indices)
        """How often each shard has been left out: what was asked in an earlier life says nothing of this one."""
        self._clock = clock
        self._absent: dict[int, _Absence] = {}
        self._pauses = [0.0] * len(indices)
        self._returned = [-_PROBATION_S] * len(indices)
        self._live = np.ones(len(indices), np.bool_)

    def __len__(self) -> int:
        return len(self.ports)

    @property
    def spec(self) -> RecordSpec:
        return self.ports[0].hello.spec

    @property
    def consuming(self) -> bool:
        """Records leave the shards when they are sampled."""
        return self.ports[0].hello.consuming

    @property
    def live(self) -> NDArray[np.bool_]:
        """bool[N], shards that are not left out."""
        return self._live

    @property
    def complete(self) -> bool:
        """No shard is left out."""
        return not self._absent

    @property
    def position_of(self) -> dict[int, int]:
        """Position by shard index."""
        return {port.hello.shard: position for position, port in enumerate(self.ports)}

    def reason(self, position: int) -> str | None:
        """Why a shard is left out; None while it serves."""
        absence = self._absent.get(position)
        return None if absence is None else absence.reason

    def add(self, port: ShardPort) -> None:
        """One more shard; it has passed `check`."""
        self.ports.append(port)
        self.views.add_shard(port.hello.min_size)
        self.updates.add_shard(port.hello.shard)
        self.life.append(0)
        self._pauses.append(0.0)
        self._returned.append(-_PROBATION_S)
        self._live = np.append(self._live, True)

    def check(self, hello: Hello) -> None:
        """Whether a shard may be added; raises as the constructor."""
        if hello.shard in self.position_of:
            raise ConfigError(f"shard {hello.shard} at {hello.address} is a shard of this replay already")
        self._check_alike(hello)

    def check_batch(self, batch_size: int) -> int:
        """Bytes of a batch; raises InvalidRecord for one below 1 record or too large for a message."""
        if batch_size < 1:
            raise InvalidRecord(f"batch size is {batch_size}, must be at least 1")
        size = 256 + batch_size * (self.spec.record_size + KEY_DTYPE.itemsize + 8)
        most = min(port.hello.max_message_bytes for port in self.ports)
        if size > most:
            raise InvalidRecord(f"a batch of {batch_size} makes {size} bytes, a message holds {most}")
        return size

    def ask(self, position: int, start: Callable[[ShardPort], Call[Reply]], held_s: float = 0.0) -> Asked[Reply]:
        """Begin a call that the shard may hold for `held_s` seconds."""
        now = self._clock.now()
        try:
            call = start(self.ports[position])
        except _LEAVES_OUT as error:
            call = _Failed(error)
        return Asked(position, self.life[position], call, now, held_s)

    def answer(self, asked: Asked[Reply], deadline: float) -> Reply:
        """The reply to a call.

        Raises:
            ReplayTimeout: none before the deadline; ask again later.
            Unavailable: the shard is left out from now on.
            HeadraceError: what it refused.
        """
        try:
            return self._awaited(asked, deadline)
        except _LEAVES_OUT as error:
            self.lose(asked, str(error))
            raise Unavailable(str(error)) from None

    def _awaited(self, asked: Asked[Reply], deadline: float) -> Reply:
        suspect = asked.sent + asked.held_s + SILENCE_S
        while True:
            now = self._clock.now()
            if now >= suspect and asked.overdue is None:
                asked.overdue = now
            until = suspect if asked.overdue is None else asked.overdue + _LAST_LOOK_S
            try:
                return asked.call.result(max(min(deadline, until) - now, 0.0))
            except ReplayTimeout as error:
                now = self._clock.now()
                if asked.overdue is not None and now >= until and not self.ports[asked.position].synchronous:
                    raise Unavailable(f"{error} after {now - asked.sent:.1f} s") from None
                if now >= deadline:
                    raise

    def saw(self, asked: Asked[Reply], view: View) -> None:
        """A reply told what its shard holds."""
        if self.current(asked):
            self.views.see(asked.position, view)

    def current(self, asked: Asked[Reply]) -> bool:
        """The shard has not been left out since it was asked."""
        return bool(self._live[asked.position]) and asked.life == self.life[asked.position]

    def lose(self, asked: Asked[Reply], reason: str) -> None:
        """A call failed for a reason that lies with its shard: leave it out."""
        self.leave_out(asked.position, asked.life, reason)

    def leave_out(self, position: int, life: int, reason: str) -> None:
        """Leave a shard out, unless what is said of it is of an earlier life."""
        if self.ports[position].synchronous or not self._live[position] or life != self.life[position]:
            return
        now = self._clock.now()
        fresh = now - self._returned[position] >= _PROBATION_S  # one that flaps is asked less and less often
        pause = 0.0 if fresh else self._longer(position)
        self._pauses[position] = pause
        self._absent[position] = _Absence(reason, now + pause)
        self._live[position] = False
        self.life[position] += 1
        self.views.forget(position)

    def look(self) -> None:
        """Ask shards that are left out who they are, and let those come back that answer; never waits."""
        for position, absence in list(self._absent.items()):
            now = self._clock.now()
            if absence.greeting is None:
                if now >= absence.next_try:
                    absence.greeting, absence.greeted = self.ask(position, lambda port: port.greet()).call, now
            elif absence.greeting.done():
                self._answered(position, absence)
            elif now - absence.greeted > _GREETING_S:
                self._ask_later(position, absence)

    def await_live(self, deadline: float) -> None:
        """Until some shard answers.

        Raises:
            Unavailable: none did before the deadline; the message names them.
        """
        while True:
            self.look()
            if self._live.any():
                return
            remaining = deadline - self._clock.now()
            if remaining <= 0.0:
                raise Unavailable(f"no shard of this replay answers: {self._absences()}")
            self._clock.sleep(min(remaining, _POLL_S))

    def _absences(self) -> str:
        return "; ".join(
            f"shard {self.ports[position].hello.shard} at {self.ports[position].hello.address} ({absence.reason})"
            for position, absence in sorted(self._absent.items())
        )

    def _answered(self, position: int, absence: _Absence) -> None:
        assert absence.greeting is not None
        port = self.ports[position]
        try:
            hello = absence.greeting.result(0.0)
            if hello.shard != port.hello.shard:
                raise ConfigError(f"{hello.address} now serves shard {hello.shard}, not {port.hello.shard}")
            self._check_alike(hello)
            reborn = hello.incarnation != port.hello.incarnation
            port.adopt(hello)
            self.views.adopt(position, hello.min_size)
        except HeadraceError as error:
            absence.reason = str(error)
            self._ask_later(position, absence)
            return
        if reborn:
            self.updates.drop(position)
        del self._absent[position]
        self._live[position] = True
        self._returned[position] = self._clock.now()

    def _ask_later(self, position: int, absence: _Absence) -> None:
        absence.greeting = None
        self._pauses[position] = self._longer(position)
        absence.next_try = self._clock.now() + self._pauses[position]

    def _longer(self, position: int) -> float:
        return min(max(2.0 * self._pauses[position], _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def _check_alike(self, hello: Hello) -> None:
        first = self.ports[0].hello
        check_same_spec(first.spec, hello.spec, hello.address)
        if hello.consuming != first.consuming:
            raise ConfigError(
                f"of shards {first.shard} and {hello.shard} only one removes records by sampling them "
                "(max_times_sampled); give all shards of a replay the same setting"
            )
