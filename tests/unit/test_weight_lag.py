"""Actors whose weights stay behind what is published: they pause, or go on and count it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.runs import changed, digest, experiment, play

from actors.loop import ActorLoop
from distributed.build import make_actor_loop, make_learner, make_spec, make_task
from distributed.runtime import Progress
from distributed.tally import Tally
from learners.weights import WeightSlot, WeightSnapshot

ENVS = 4


class Taker:
    """A writer that takes everything."""

    def __init__(self) -> None:
        self.acknowledged = 0

    def append(self, rows: Any, priorities: Any = None, *, timeout_s: float = 5.0) -> None:
        self.acknowledged += len(rows["reward"])


def policies(count: int) -> list[WeightSnapshot]:
    """Versions 1, 2, ... of a policy."""
    config = experiment("headrace/MoviePick10-v0", ENVS)
    task = make_task(config)
    learner = make_learner(config, task, make_spec(config, task), seed=1, device="cpu")
    return [learner.snapshot() for _ in range(count)]


def an_actor(slot: WeightSlot, most: int | None, what: str = "pause") -> tuple[ActorLoop, Taker]:
    """One that has acted once, with the weights that are there."""
    config = changed(
        experiment("headrace/MoviePick10-v0", ENVS), actors={"max_weight_lag": most, "on_weight_lag": what}
    )
    writer: Any = Taker()
    loop = make_actor_loop(config, make_task(config), 0, writer, slot, time.monotonic)
    loop.begin(1, 0)
    assert loop.step(0.0) and loop.report().env_steps == ENVS
    return loop, writer


def frozen_at_one() -> WeightSlot:
    """A publisher that delivers the first version and no other."""
    slot = WeightSlot()
    slot.publish(policies(1)[0])
    return slot


def test_an_actor_pauses_when_its_weights_are_too_old_and_goes_on_when_they_come() -> None:
    versions, slot = policies(3), WeightSlot()
    slot.publish(versions[0])
    loop, writer = an_actor(slot, 1)
    loop.published(2)
    assert loop.step(0.0)  # one version behind is allowed
    loop.published(3)
    stored = writer.acknowledged
    assert [loop.step(0.0) for _ in range(5)] == [False] * 5
    report = loop.report()
    assert (report.env_steps, report.blocked_on, report.policy_version) == (2 * ENVS, "weights", 1)
    assert writer.acknowledged == stored and report.overdue == 0
    slot.publish(versions[1])
    assert loop.step(0.0)
    report = loop.report()
    assert (report.env_steps, report.blocked_on, report.policy_version) == (3 * ENVS, None, 2)


def test_a_paused_actor_waits_no_longer_than_its_turn_and_tells_how_long() -> None:
    loop, _ = an_actor(frozen_at_one(), 0)
    loop.published(9)
    begin = time.monotonic()
    assert not loop.step(0.05)
    assert 0.05 <= time.monotonic() - begin < 5.0
    assert 0.05 <= loop.report().seconds_blocked < 5.0


def test_weights_end_a_pause_while_nothing_is_inserted() -> None:
    """The learner may be waiting for this very actor: what it has published arrives without it."""
    versions, slot = policies(2), WeightSlot()
    slot.publish(versions[0])
    loop, _ = an_actor(slot, 0)
    loop.published(2)
    late = threading.Timer(0.05, slot.publish, [versions[1]])
    late.start()
    assert loop.step(60.0)
    late.join()
    assert loop.report().policy_version == 2


def test_records_that_are_due_are_handed_over_during_a_pause() -> None:
    loop, writer = an_actor(frozen_at_one(), 0)
    while not writer.acknowledged:
        loop.step(0.0)
    writer.append = _refuse_once(writer)  # type: ignore[method-assign]
    while loop.step(0.0):
        pass
    stored = writer.acknowledged
    loop.published(9)
    assert loop.step(0.0) and writer.acknowledged > stored
    assert not loop.step(0.0) and loop.report().blocked_on == "weights"


def _refuse_once(writer: Taker) -> Any:
    from replay_server.errors import ReplayTimeout

    calls, take = iter([True]), writer.append

    def append(rows: Any, priorities: Any = None, *, timeout_s: float = 5.0) -> None:
        if next(calls, False):
            raise ReplayTimeout("not now", "samples")
        take(rows, priorities)

    return append


def test_tagged_actors_go_on_and_their_transitions_are_counted() -> None:
    loop, _ = an_actor(frozen_at_one(), 2, "tag")
    loop.published(3)
    assert loop.step(0.0) and loop.report().overdue == 0
    loop.published(4)
    for _ in range(3):
        assert loop.step(0.0)
    tally = Tally([0])
    for _ in range(2):  # told once
        tally.add(Progress({0: loop.report()}, ()))
    assert tally.overdue_transitions == 3 * ENVS == tally.row(1.0)["overdue_transitions"]
    assert Tally([0], tally.state()).overdue_transitions == 3 * ENVS


@pytest.mark.parametrize("most", [None, 10**9])
def test_without_a_bound_nothing_waits_and_nothing_counts(most: int | None) -> None:
    loop, _ = an_actor(frozen_at_one(), most)
    loop.published(10**6)
    assert loop.step(0.0) and loop.report().overdue == 0


def test_in_one_thread_weights_are_there_at_once_so_that_no_bound_changes_a_run(tmp_path: Path) -> None:
    config = changed(experiment("headrace/MoviePick10-v0", ENVS), run={"total_env_steps": 1_000})
    bounded = changed(config, actors={"max_weight_lag": 0})
    result = play(config, tmp_path / "a")
    assert result["overdue_transitions"] == 0 and np.isfinite(result["evaluation"]["mean"])
    play(bounded, tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
