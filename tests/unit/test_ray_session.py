"""Starting Ray: whose signals are whose, and what is said when it does not start."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from kit.runs import experiment

from distributed.ray_session import start_ray
from replay_server.errors import WorkerDied


@pytest.fixture
def sigterm() -> Iterator[Callable[[int, Any], None]]:
    """A handler of SIGTERM of one's own."""

    def handle(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    yield handle
    signal.signal(signal.SIGTERM, before)


def _take_sigterm(**_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray's own init does with a handler that ends the process


def test_sigterm_stays_with_the_run(sigterm: Callable[[int, Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", _take_sigterm)
    assert start_ray(experiment("CartPole-v1", 1))
    assert signal.getsignal(signal.SIGTERM) is sigterm


def test_ray_is_started_beside_the_main_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: None)
    started: list[bool] = []
    thread = threading.Thread(target=lambda: started.append(start_ray(experiment("CartPole-v1", 1))))
    thread.start()
    thread.join(10.0)
    assert started == [True]


def test_a_ray_that_does_not_start_in_time_is_one_line(
    sigterm: Callable[[int, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        _take_sigterm()
        raise Exception("The current node timed out during startup. This could happen because ...")  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(WorkerDied, match=r"Ray did not start \(The current node timed out .* try again"):
        start_ray(experiment("CartPole-v1", 1))
    assert signal.getsignal(signal.SIGTERM) is sigterm
