"""Metrics rows, what bounds a run, and what is cut off on resume."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from actors.loop import ActorReport
from distributed.metrics import MetricsWriter
from distributed.progress import LiveView
from distributed.runtime import Progress
from distributed.tally import Tally, bound_by
from learners.loop import LearnerReport


def actor(env_steps: int, returns: list[float], version: int, blocked: float = 0.0) -> ActorReport:
    return ActorReport(
        env_steps, env_steps, np.array(returns), np.full(len(returns), 10), version, blocked, None, {}
    )  # fmt: skip


def test_what_is_waited_for_is_what_took_longest() -> None:
    """A fault of twenty seconds is not hidden by a moment at the limiter after it; the line of the run names it."""
    tally = Tally([0])
    for seconds, reason in ((0.1, "samples"), (0.5, "shard"), (0.6, "shard"), (0.2, "samples")):
        report = actor(10, [], 1)
        tally.add(Progress({0: replace(report, seconds_blocked=seconds, blocked_on=reason)}, ()))
    assert tally.blocked_on == {"actors": "shard"}
    console = Console(record=True, file=StringIO(), width=500)
    row = tally.row(1.0) | {"replay": {"size": 1}, "restarts": 0}
    row["time"]["bound_by"] = "learner"
    view = LiveView("run", 10, None, lambda: 0.0, console)
    view.update(tally, row, 1.0)
    assert "waits for" not in console.export_text()  # a new row has begun
    tally.add(Progress({0: replace(actor(10, [], 1), seconds_blocked=0.1, blocked_on="disk")}, ()))
    LiveView("run", 10, None, lambda: 0.0, console).update(tally, row, 1.0)
    assert "waits for actors: disk" in console.export_text()


def test_the_screen_shows_the_speed_of_the_last_seconds_whatever_the_newest_row_covers() -> None:
    """The row of a checkpoint that comes right after another one covers next to nothing."""
    seconds, tally = [0.0], Tally([0])
    row = tally.row(1.0) | {"replay": {"size": 1}, "restarts": 0}
    row["time"] |= {"bound_by": "learner", "env_steps_per_second": 0.0, "updates_per_second": 0.0}
    console = Console(record=True, file=StringIO(), width=500)
    view = LiveView("run", 10, None, lambda: seconds[0], console)
    for now in (0.0, 5.0, 10.0):
        seconds[0] = now
        tally.add(Progress({0: actor(int(100 * now), [], 1)}, (LearnerReport(int(20 * now), 1, {}, 0.0, None),)))
        view.update(tally, row, now)
    first, *later = console.export_text().splitlines()
    assert "env steps/s -  updates/s -" in first
    assert len(later) == 2 and all("env steps/s 100  updates/s 20" in line for line in later)


def test_a_row_averages_what_happened_since_the_last_one() -> None:
    tally = Tally([0, 0])
    tally.add(Progress({}, (LearnerReport(10, 5, {"loss": 1.0}, 0.1, None),)))
    tally.add(Progress({0: actor(100, [1.0, 3.0], 5), 1: actor(50, [], 2)}, ()))
    tally.add(Progress({1: actor(80, [5.0], 3)}, (LearnerReport(40, 6, {"loss": 3.0}, 0.2, "inserts"),)))
    row = tally.row(2.0)
    assert row["env_steps"] == 180 and row["updates"] == 40 and row["weights_version"] == 6
    assert row["episodes"] == 3 and row["train_return"] == 3.0
    assert row["learner"]["loss"] == (10 * 1.0 + 30 * 3.0) / 40
    assert row["staleness"] == np.mean([0, 3, 3])  # versions behind the newest one known at each report
    assert row["time"]["env_steps_per_second"] == 90.0
    assert row["time"]["blocked_on"] == {"learner": "inserts"}
    assert tally.staleness == [6.0, 3.0, 3.0] and tally.median_staleness == 3
    empty = tally.row(3.0)
    assert empty["time"]["blocked_on"] == {}
    assert empty["train_return"] is None and empty["learner"] == {} and empty["time"]["updates_per_second"] == 0.0


def test_totals_survive_a_checkpoint() -> None:
    tally = Tally([0])
    tally.add(Progress({0: actor(10, [], 1)}, (LearnerReport(4, 3, {}, 0.0, None),)))
    again = Tally([10], json.loads(json.dumps(tally.state())))
    assert (again.env_steps, again.updates, again.weights_version) == (10, 4, 3)
    assert again.staleness == tally.staleness and again.median_staleness == tally.median_staleness == 2


def test_the_stage_others_wait_for_bounds_the_run() -> None:
    def row(blocked: float, waiting: float, offline: bool = False) -> dict[str, object]:
        return {"offline": offline, "time": {"actors_blocked": blocked, "learner_waiting": waiting}}

    assert bound_by(row(0.0, 0.01, offline=True)) == "learner"
    assert bound_by(row(0.0, 0.5, offline=True)) == "replay"

    assert bound_by(row(0.6, 0.1)) == "learner"
    assert bound_by(row(0.1, 0.6)) == "actors"
    assert bound_by(row(0.01, 0.02)) == "processors"


def test_rows_after_the_checkpoint_are_cut_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, tmp_path / "tensorboard", 0)
    for step in range(4):
        writer.write({"env_steps": step, "learner": {"loss": 0.5}, "name": "x", "none": None}, 1.0)
    writer.close()
    writer = MetricsWriter(path, tmp_path / "tensorboard", 2)
    writer.write({"env_steps": 9}, 2.0)
    assert writer.rows == 3
    writer.close()
    assert [json.loads(line)["env_steps"] for line in path.read_text().splitlines()] == [0, 1, 9]


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", 0)
    writer.write({"env_steps": 7, "learner": {"loss": 0.5}, "episodes": 3}, 1.0)
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {tag: (events.Scalars(tag)[0].step, events.Scalars(tag)[0].value) for tag in events.Tags()["scalars"]} == {
        "learner/loss": (7, 0.5),
        "episodes": (7, 3.0),
    }


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Writes beyond so many bytes fail, after the bytes up to there: what a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rows_wait_for_a_disk_that_is_full(tmp_path: Path) -> None:
    """Neither the run nor a row is lost, and none is there by half."""
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, tmp_path / "tensorboard", 0) as writer:
        writer.write({"env_steps": 0}, 0.0)
        whole = path.read_bytes()
        with no_file_beyond(len(whole) + 5):
            for step in range(1, 40):
                writer.write({"env_steps": step}, 0.0)
            assert path.read_bytes() == whole and writer.rows == 40
        writer.write({"env_steps": 40}, 0.0)
    assert [json.loads(line)["env_steps"] for line in path.read_text().splitlines()] == list(range(41))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_stays_full_ends_no_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with no_file_beyond(5):
        with MetricsWriter(path, tmp_path / "tensorboard", 0) as writer:
            for step in range(40):
                writer.write({"env_steps": step}, 0.0)
        assert path.read_bytes() == b""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rows_of_before_stay_where_the_disk_is_full_on_resume(tmp_path: Path) -> None:
    """They are not written again, so neither a full disk nor a kill at that moment can lose them."""
    path = tmp_path / "metrics.jsonl"
    rows = [b'{"env_steps": %d}\n' % step for step in range(4)]
    path.write_bytes(b"".join(rows))
    inode = path.stat().st_ino
    with no_file_beyond(5), MetricsWriter(path, tmp_path / "tensorboard", 2) as writer:
        assert writer.rows == 2
    assert path.read_bytes() == b"".join(rows[:2]) and path.stat().st_ino == inode


def test_a_row_that_is_there_by_half_is_cut_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 0}\n{"env_st')
    with MetricsWriter(path, tmp_path / "tensorboard", 5) as writer:
        assert writer.rows == 1
        writer.write({"env_steps": 7}, 0.0)
    assert [json.loads(line)["env_steps"] for line in path.read_text().splitlines()] == [0, 7]
