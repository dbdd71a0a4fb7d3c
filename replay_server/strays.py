"""Answers to calls whose batches nobody will read: their credits go back to the shards that took them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replay_server.errors import HeadraceError, ReplayTimeout
from replay_server.members import Asked, Members
from replay_server.messages import NO_UPDATES, SampleReply, UpdateReply, UpdateRequest


@dataclass(frozen=True)
class _Drawing:
    asked: Asked[SampleReply]
    credit: float
    updates: int


class Strays:
    """Calls under way that are awaited only to set the books right.

    A shard that is left out answers late, and is paid back then, or never.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._drawings: list[_Drawing] = []
        self._returns: list[Asked[UpdateReply]] = []

    def __bool__(self) -> bool:
        return bool(self._drawings or self._returns)

    def take(self, asked: Asked[SampleReply], credit: float, updates: int) -> None:
        """A call under way with the credits it spends and the number of updates it carries."""
        self._drawings.append(_Drawing(asked, credit, updates))

    def give_back(self, position: int, credit: float) -> None:
        """Credits of rows that were drawn and will not be read."""
        if credit > 0.0:
            request = UpdateRequest(NO_UPDATES, credit)
            self._returns.append(self._members.ask(position, lambda port: port.update(request)))

    def ask_view(self, position: int) -> None:
        """Ask a shard what it holds, unless its answer to another call like this is awaited; `poll` takes it in."""
        if not any(asked.position == position for asked in self._returns):
            request = UpdateRequest(NO_UPDATES)
            self._returns.append(self._members.ask(position, lambda port: port.update(request)))

    def poll(self) -> None:
        """Deal with every answer that is there; never waits."""
        drawings, self._drawings = self._drawings, []
        for drawing in drawings:
            if drawing.asked.call.done():
                self._drawn(drawing)
            else:
                self._drawings.append(drawing)
        returns, self._returns = self._returns, []
        for asked in returns:
            if asked.call.done():
                self._returned(asked)
            else:
                self._returns.append(asked)

    def settle(self, deadline: float) -> None:
        """Wait for all answers, those of shards that are left out excepted.

        Raises:
            ReplayTimeout: some have not come before the deadline.
        """
        while self:
            self.poll()
            asked: list[Asked[Any]] = [*(drawing.asked for drawing in self._drawings), *self._returns]
            waited_for = next((a for a in asked if self._members.current(a)), None)
            if waited_for is None:
                return
            try:
                self._members.answer(waited_for, deadline)
            except ReplayTimeout:
                raise
            except HeadraceError:
                continue  # `poll` sees it again

    def _drawn(self, drawing: _Drawing) -> None:
        asked = drawing.asked
        if self._members.current(asked):
            self._members.views.arrive(asked.position, drawing.credit)
        try:
            reply = asked.call.result(0.0)
        except HeadraceError:
            self._members.updates.count(0, drawing.updates)
            return
        self._members.saw(asked, reply.view)
        self._members.updates.count(reply.applied, reply.stale)
        if reply.blocked_on is None:
            self.give_back(asked.position, drawing.credit)

    def _returned(self, asked: Asked[UpdateReply]) -> None:
        try:
            self._members.saw(asked, asked.call.result(0.0).view)
        except HeadraceError:
            return
