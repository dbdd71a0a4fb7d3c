"""Worker processes that do what a test says, and a clock that a test moves."""

from __future__ import annotations

from typing import Any

from distributed.processes import Role
from replay_server.errors import WorkerDied


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeCall:
    """A call of a worker's method, with no answer yet."""

    def __init__(self, method: str, arguments: tuple[Any, ...]) -> None:
        self.method = method
        self.arguments = arguments
        self.ended = False
        self.outcome: Any = None

    def answer(self, value: Any = None) -> None:
        """The method returns this, or raises it."""
        self.ended, self.outcome = True, value


class _Method:
    def __init__(self, worker: FakeWorker, name: str) -> None:
        self._worker = worker
        self._name = name

    def remote(self, *arguments: Any, **_: Any) -> FakeCall:
        call = FakeCall(self._name, arguments)
        if self._name in self._worker.replies:
            call.answer(self._worker.replies[self._name])
        self._worker.calls.append(call)
        return call


class FakeWorker:
    """A process and the calls it was given."""

    def __init__(self, cls: type, role: Role) -> None:
        self.cls = cls
        self.role = role
        self.calls: list[FakeCall] = []
        self.replies: dict[str, Any] = {}  # methods that are answered at once
        self.killed = False

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    @property
    def call(self) -> FakeCall:
        """The newest."""
        return self.calls[-1]

    def die(self) -> None:
        """The process ends: every call without an answer fails."""
        for call in self.calls:
            if not call.ended:
                call.answer(WorkerDied("it has died"))


class FakeProcesses:
    """Implements `distributed.processes.Processes`."""

    room_seconds = 60.0
    patience_seconds = 20.0

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []

    @property
    def newest(self) -> FakeWorker:
        """The worker that was started last."""
        return self.workers[-1]

    def spawn(self, cls: type, role: Role, *arguments: Any) -> FakeWorker:
        self.workers.append(FakeWorker(cls, role))
        return self.workers[-1]

    def ask(self, handle: FakeWorker, method: str) -> FakeCall:
        call: FakeCall = getattr(handle, method).remote()
        return call

    def done(self, call: FakeCall) -> bool:
        return call.ended

    def get(self, call: FakeCall, seconds: float, who: str) -> Any:
        for worker in self.workers:  # the answer may have been told after the call was made
            if call in worker.calls and not call.ended and call.method in worker.replies:
                call.answer(worker.replies[call.method])
        assert call.ended, f"{who}: waited for {call.method}, which has not ended"
        if isinstance(call.outcome, Exception):
            raise call.outcome
        return call.outcome

    def kill(self, handle: FakeWorker) -> None:
        handle.killed = True
