"""Checkpoints at a URL: uploaded whole, fetched whole, or refused by name."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from distributed.manifest import read_manifest
from distributed.remote_checkpoints import RemoteCheckpoints, _Patience
from distributed.run_directory import RunDirectory
from replay_server.errors import CheckpointError, ConfigError


def complete(run: RunDirectory, step: int) -> Path:
    directory = run.new_checkpoint(step)
    (directory / "replay-0.h5").write_bytes(b"records up to %d" % step)
    (directory / "learner.safetensors").write_bytes(b"weights of %d" % step)
    run.complete_checkpoint(directory, {"env_steps": step, "scheduled": True}, 9)
    return run.checkpoints / str(step)


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = f"memory://bucket{tmp_path}" if request.param == "memory" else f"file://{tmp_path}/bucket"
    return f"{place}/my-run"


def names(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return sorted(str(name).removeprefix(root).lstrip("/") for name in files.find(root))


def test_what_is_uploaded_comes_back(tmp_path: Path, url: str) -> None:
    run, remote = RunDirectory.create(tmp_path / "run", "a: 1\n"), RemoteCheckpoints(url)
    remote.create("a: 1\n")
    for step in (500, 1000, 2000):
        remote.upload(complete(run, step), keep=2)
    inside = ("learner.safetensors", "manifest.json", "replay-0.h5")
    uploaded = [f"checkpoints/{step}/{name}" for step in (1000, 2000) for name in inside]
    assert names(url) == [*uploaded, "config.yaml"]
    fetched = RemoteCheckpoints(url).fetch(tmp_path / "elsewhere")
    assert fetched.config.read_text() == "a: 1\n"
    [checkpoint] = fetched.complete_checkpoints()
    assert read_manifest(checkpoint) == read_manifest(run.checkpoints / "2000")
    assert (checkpoint / "replay-0.h5").read_bytes() == b"records up to 2000"
    remote.discard_after(1000)
    assert {name.split("/")[1] for name in names(url) if "/" in name} == {"1000"}


def test_one_without_its_manifest_is_passed_over(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, remote = RunDirectory.create(tmp_path / "run", ""), RemoteCheckpoints(url)
    remote.create("")
    remote.upload(complete(run, 500), keep=2)
    put = type(remote._files).put_file

    def breaks(self: Any, local: str, there: str, **options: Any) -> None:
        if there.endswith("replay-0.h5"):
            raise OSError("connection lost\nafter all")
        put(self, local, there, **options)

    monkeypatch.setattr(type(remote._files), "put_file", breaks)
    with pytest.raises(CheckpointError, match="my-run: cannot be written to: connection lost$"):
        remote.upload(complete(run, 1000), keep=2)
    assert "checkpoints/1000/learner.safetensors" in names(url)
    [checkpoint] = remote.fetch(tmp_path / "elsewhere").complete_checkpoints()
    assert checkpoint.name == "500"


def test_a_fetch_that_broke_off_can_be_made_again(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, place = RemoteCheckpoints(url), tmp_path / "elsewhere"
    remote.create("")
    remote.upload(complete(RunDirectory.create(tmp_path / "run", ""), 500), keep=2)
    for error in (OSError("connection lost"), KeyboardInterrupt()):

        def breaks(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(type(remote._files), "get_file", breaks)
            with pytest.raises((CheckpointError, KeyboardInterrupt)):
                remote.fetch(place)
        assert not [path.name for path in tmp_path.iterdir() if "elsewhere" in path.name], "nothing is left of it"
    (tmp_path / ".elsewhere.part" / "checkpoints").mkdir(parents=True)  # of a process that was killed
    fetched = remote.fetch(place)
    assert fetched.path == place and [directory.name for directory in fetched.complete_checkpoints()] == ["500"]
    with pytest.raises(ConfigError, match="elsewhere is not empty"):
        remote.fetch(place)


def test_a_run_is_fetched_into_an_empty_directory(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RemoteCheckpoints(url)
    remote.create("")
    remote.upload(complete(RunDirectory.create(tmp_path / "run", ""), 500), keep=2)
    (tmp_path / "elsewhere").mkdir()
    assert len(remote.fetch(tmp_path / "elsewhere").complete_checkpoints()) == 1
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    with pytest.raises(ConfigError, match="disk is where a disk is mounted; name a directory in it"):
        remote.fetch(tmp_path / "disk")


def test_a_damaged_copy_is_refused_by_name(tmp_path: Path, url: str) -> None:
    run, remote = RunDirectory.create(tmp_path / "run", ""), RemoteCheckpoints(url)
    remote.create("")
    remote.upload(complete(run, 500), keep=2)
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/checkpoints/500/learner.safetensors", b"weights of 501")
    with pytest.raises(CheckpointError, match="learner.safetensors: its checksum is"):
        remote.fetch(tmp_path / "elsewhere")
    files.rm_file(f"{root}/checkpoints/500/learner.safetensors")
    with pytest.raises(CheckpointError, match="learner.safetensors is missing"):
        remote.fetch(tmp_path / "once-more")


def test_places_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, url: str) -> None:
    remote = RemoteCheckpoints(url)
    with pytest.raises(ConfigError, match="my-run is not a run"):
        remote.fetch(tmp_path / "elsewhere")
    remote.create("")
    with pytest.raises(ConfigError, match="my-run has no complete checkpoint"):
        remote.fetch(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="my-run holds a run; choose another URL, or continue .* --resume .*my-run"):
        remote.create("")
    for bad, words in [("s3://bucket/run", "Install s3fs"), ("nowhere://bucket/run", "Protocol not known: nowhere")]:
        with pytest.raises(ConfigError, match=f"run.checkpoint_url: {bad}: {words}"):
            RemoteCheckpoints(bad)
    (tmp_path / "bucket").mkdir(exist_ok=True)
    (tmp_path / "bucket" / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to file:"):
        RemoteCheckpoints(f"file://{tmp_path}/bucket/file").create("")


def test_the_manifest_goes_up_last(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, order = RemoteCheckpoints(url), []
    monkeypatch.setattr(type(remote._files), "put_file", lambda self, local, there, **_: order.append(Path(there).name))
    remote.upload(complete(RunDirectory.create(tmp_path / "run", ""), 500), keep=2)
    assert order[-1] == "manifest.json" and len(order) == 3
    assert json.loads((tmp_path / "run" / "checkpoints" / "500" / "manifest.json").read_text())["env_steps"] == 500


def test_a_copy_that_hangs_is_given_up_until_the_url_answers(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, remote = RunDirectory.create(tmp_path / "run", ""), RemoteCheckpoints(url)
    remote.create("")
    remove, answers = remote._remove, threading.Event()

    def hangs(place: str) -> None:
        assert not place.endswith("/500") or answers.wait(60.0)
        remove(place)

    monkeypatch.setattr(remote, "_remove", hangs)
    monkeypatch.setattr("distributed.remote_checkpoints._STILL_SECONDS", 0.3)
    with pytest.raises(CheckpointError, match="my-run: the copy was given up: no progress for 0 s"):
        remote.upload(complete(run, 500), keep=2)
    with pytest.raises(CheckpointError, match="my-run: has still not answered for an earlier copy"):
        remote.upload(complete(run, 1000), keep=2)
    monkeypatch.setattr("distributed.remote_checkpoints._STILL_SECONDS", 60.0)
    answers.set()
    deadline = time.monotonic() + 60.0
    while remote._copying is None or not remote._copying.done():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert names(url) == ["config.yaml"], "it ends where nobody waits for it"
    remote.upload(complete(run, 2000), keep=2)
    assert "checkpoints/2000/manifest.json" in names(url)


def test_a_copy_that_makes_progress_is_waited_for(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that a protocol tells of, and time for a large file that it tells nothing of."""
    remote, now = RemoteCheckpoints(url), [0.0]

    class Time:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr("distributed.remote_checkpoints.time", Time)
    patience, left = _Patience(), []

    def slow(self: Any, local: str, there: str, callback: Any, **_: Any) -> None:
        for _ in range(10):
            now[0] += 599.0
            callback.relative_update(1)
            left.append(patience.seconds_left)

    monkeypatch.setattr("distributed.remote_checkpoints._Patience", lambda: patience)
    monkeypatch.setattr(type(remote._files), "put_file", slow)
    remote.upload(complete(RunDirectory.create(tmp_path / "run", ""), 500), keep=2)
    assert len(left) == 30 and min(left) >= 600.0
    patience.begin_file(4_000_000_000)
    now[0] += 1590.0
    assert patience.seconds_left == 10.0
    patience.begin_file(0)
    assert patience.seconds_left == 600.0
