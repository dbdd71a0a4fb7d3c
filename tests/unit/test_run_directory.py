"""Run directories: nothing overwritten, partial checkpoints refused, old ones removed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed.manifest import read_manifest
from distributed.run_directory import RunDirectory
from replay_server.errors import CheckpointError, ConfigError


def complete(run: RunDirectory, step: int, keep: int = 10, scheduled: bool = True) -> Path:
    directory = run.new_checkpoint(step)
    (directory / "replay-0.h5").write_bytes(b"12345")
    (directory / "learner.safetensors").write_bytes(b"weights of %d" % step)
    run.complete_checkpoint(directory, {"env_steps": step, "scheduled": scheduled}, keep)
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


def test_a_run_has_one_driver_at_a_time(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "")
    other = RunDirectory.open(run.path).owned()
    with run.owned(), pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* drives this run; end that"):
        other.__enter__()
    with RunDirectory.open(run.path).owned():
        pass


def test_a_killed_driver_leaves_no_lock(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "")
    driver = os.fork()
    if driver == 0:
        with run.owned():
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1]) == -signal.SIGKILL
    assert (run.path / "driver.lock").read_text().startswith(f"process {driver} ")
    with run.owned():
        pass


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


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -(len(path.read_bytes()) // 5)])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2] ^= 1
    path.write_bytes(content)


def change_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"env_steps": 100', '"env_steps": 900'))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("replay-0.h5", Path.unlink, "100: replay-0.h5 is missing: partial"),
        ("replay-0.h5", shorten, "replay-0.h5: 4 bytes, the manifest says 5: damaged"),
        ("learner.safetensors", flip_a_bit, "learner.safetensors: its checksum is .*, the manifest says"),
        ("manifest.json", change_a_number, "manifest.json: damaged or changed by hand"),
        ("manifest.json", shorten, "no readable manifest.json"),
        ("manifest.json", lambda path: path.write_text("[]"), "no readable manifest.json"),
        ("manifest.json", lambda path: path.write_text('{"format": 1, "files": {}}'), "format 1, this version reads 2"),
    ],
)
def test_a_partial_or_damaged_checkpoint_is_refused_and_names_the_file(
    tmp_path: Path, name: str, damage: Callable[[Path], Any], message: str
) -> None:
    directory = complete(RunDirectory.create(tmp_path / "run", ""), 100)
    manifest = read_manifest(directory)
    assert manifest["scheduled"] and manifest["files"].keys() == {"replay-0.h5", "learner.safetensors"}
    damage(directory / name)
    with pytest.raises(CheckpointError, match=message) as refused:
        read_manifest(directory)
    assert "\n" not in str(refused.value)


def test_files_of_two_checkpoints_are_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "")
    first, second = complete(run, 100), complete(run, 200)
    (first / "learner.safetensors").replace(second / "learner.safetensors")  # as long as the one that was there
    with pytest.raises(CheckpointError, match="200/learner.safetensors: .*damaged or of another checkpoint; remove"):
        read_manifest(second)
    (first / "manifest.json").replace(second / "manifest.json")
    with pytest.raises(CheckpointError, match="200: is the checkpoint at 100 under another name: a mixed set"):
        read_manifest(second)


def test_a_snapshot_is_known_by_the_checksum_it_ends_with(tmp_path: Path) -> None:
    directory = complete(RunDirectory.create(tmp_path / "run", ""), 100)
    flip_a_bit(directory / "replay-0.h5")  # among the last four bytes of these five
    with pytest.raises(CheckpointError, match="replay-0.h5: its checksum is"):
        read_manifest(directory)


@pytest.mark.parametrize("same_step", [False, True])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, same_step: bool) -> None:
    """A child ends itself by SIGKILL before its first, second, ... operation on files, until it gets to the end."""
    newest = 1000 if same_step else 2000
    seen, kills = set(), 0
    while True:
        run = RunDirectory.create(tmp_path / f"run-{kills}", "")
        for step in (500, 1000):
            complete(run, step, keep=2)
        killed = in_a_child_killed_before(kills, lambda: complete(run, newest, keep=2))  # noqa: B023
        before = [d.name for d in run.complete_checkpoints()]
        cut_short = run.clean_up()
        names = [d.name for d in run.complete_checkpoints()]
        for directory in run.complete_checkpoints():
            assert read_manifest(directory)["env_steps"] == int(directory.name)
        assert names[-1] in ("1000", str(newest)) and len(names) >= 2 - bool(before == ["1000"])
        assert cut_short in ([], [f"{newest}.part"])
        assert sorted(d.name for d in run.checkpoints.iterdir()) == sorted(names)
        seen.add((tuple(names), bool(cut_short)))
        if not killed:
            break
        kills += 1
    assert kills > 10
    assert (("500", "1000"), True) in seen, "cut short: the one before is used"
    assert not cut_short and names == (["500", "1000"] if same_step else ["1000", "2000"])


def in_a_child_killed_before(operation: int, work: Callable[[], object]) -> bool:
    """Whether the child was killed, before the operation of that number."""
    if (pid := os.fork()) == 0:
        left = [operation]

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            work()
        finally:
            os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL
