"""One question to Ray for all calls in flight, against one for each."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from kit.runs import experiment

from distributed.ray_processes import RayProcesses


class Calls:
    """Takes the place of `ray.wait`."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.questions = 0

    def wait(self, calls: list[str], num_returns: int = 1, timeout: float | None = None) -> tuple[list[str], list[str]]:
        assert len(set(calls)) == len(calls)
        self.questions += 1
        ready = [call for call in calls if call in self.ended][:num_returns]
        return ready, [call for call in calls if call not in ready]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(ray, "wait", calls.wait)
    return calls


def test_a_look_tells_of_all_calls_what_a_question_for_each_would(calls: Calls) -> None:
    names = [f"call {index}" for index in range(200)]
    calls.ended = set(names[::3])
    each, one = (RayProcesses(experiment("CartPole-v1", 1), private=True) for _ in range(2))
    slow = [each.done(name) for name in names]
    assert calls.questions == 200
    one.look(names, 0.2)
    assert [one.done(name) for name in names] == slow
    assert calls.questions == 200 + 2


def test_calls_that_were_not_looked_at_are_asked_for_and_a_new_look_forgets_the_old(calls: Calls) -> None:
    processes: Any = RayProcesses(experiment("CartPole-v1", 1), private=True)
    processes.look(["a", "b"], 0.2)
    calls.ended = {"a", "c"}
    assert [processes.done(call) for call in ("a", "b", "c", "d")] == [False, False, True, False]
    processes.look(["b", "d"], 0.2)
    assert [processes.done(call) for call in ("a", "b", "d")] == [True, False, False]
    processes.look([], 0.2)
    assert not processes.done("b")
