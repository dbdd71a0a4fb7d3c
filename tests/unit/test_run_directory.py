"""Run directories: nothing overwritten, partial checkpoints refused, old ones removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed.run_directory import RunDirectory, read_manifest
from replay_server.errors import CheckpointError, ConfigError


def complete(run: RunDirectory, step: int, keep: int = 10, scheduled: bool = True) -> Path:
    directory = run.new_checkpoint(step)
    (directory / "replay-0.h5").write_bytes(b"12345")
    manifest = {"env_steps": step, "files": {"replay-0.h5": 5}, "scheduled": scheduled}
    run.complete_checkpoint(directory, manifest, keep)
    return run.checkpoints / str(step)


def test_a_directory_in_use_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("mine")
    with pytest.raises(ConfigError, match="not empty.*--resume"):
        RunDirectory.create(tmp_path, "")
    assert (tmp_path / "something").read_text() == "mine"


def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make"):
        RunDirectory.create(tmp_path / "file" / "run", "")


def test_opening_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        RunDirectory.open(tmp_path)


def test_only_checkpoints_with_a_manifest_count_and_the_oldest_go(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "a: 1\n")
    for step in (100, 90, 1000):
        complete(run, step)
    run.new_checkpoint(2000)  # interrupted before its manifest
    assert [d.name for d in run.complete_checkpoints()] == ["90", "100", "1000"]
    complete(run, 3000, keep=2)
    assert [d.name for d in run.complete_checkpoints()] == ["1000", "3000"]


def test_the_newest_scheduled_checkpoint_stays(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "a: 1\n")
    for step, scheduled in ((100, True), (200, True), (250, False), (260, False)):
        complete(run, step, keep=1, scheduled=scheduled)
    assert [d.name for d in run.complete_checkpoints()] == ["200", "260"]


def test_a_checkpoint_at_the_same_step_replaces_the_earlier_one_only_when_it_is_complete(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "a: 1\n")
    first = complete(run, 100)
    (run.new_checkpoint(100) / "replay-0.h5").write_bytes(b"half")
    assert (first / "replay-0.h5").read_bytes() == b"12345"
    complete(run, 100)
    assert [d.name for d in run.checkpoints.iterdir()] == ["100"]


@pytest.mark.parametrize(("damage", "message"), [("missing", "is missing"), ("short", "the manifest says 5")])
def test_a_partial_checkpoint_is_refused_and_names_the_file(tmp_path: Path, damage: str, message: str) -> None:
    directory = complete(RunDirectory.create(tmp_path / "run", ""), 100)
    assert read_manifest(directory)["scheduled"]
    if damage == "missing":
        (directory / "replay-0.h5").unlink()
    else:
        (directory / "replay-0.h5").write_bytes(b"12")
    with pytest.raises(CheckpointError, match=f"replay-0.h5.*{message}"):
        read_manifest(directory)
