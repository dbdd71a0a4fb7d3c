"""The disk under a journal: full and then not, torn at every byte of the last record, a bit flipped inside."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import pytest

from fault.history import check_history, read_history
from fault.records import SPEC, check_bodies, rows, stored_ids
from replay_server import connect
from replay_server.errors import ReplayTimeout, StorageFull

pytestmark = pytest.mark.integration


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "headrace-test", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("level", ["journal", "fsync"])
def test_a_full_disk_stops_inserts_and_nothing_else(
    level, small_disk, tmp_path, start_shard, start_writer, figures, soak
):
    """Inserts are refused by name and go on by themselves when there is room; sampling never stops; then a kill."""
    shard = start_shard(directory=small_disk / "shard", durability=level, capacity=150_000)
    ballast = small_disk / "ballast"
    with connect([shard.address], spec=SPEC, prefetch=0) as replay:
        writer = start_writer([shard.address], 1, most_rows=200, append_s=1.0, flush_s=1.0)
        writer.wait_for_lines(20)
        for _ in range(soak.count(1, 5)):
            _fill(ballast)
            _until_refused(replay)
            for _ in range(20):
                check_bodies(replay.sample(64).columns)
            assert replay.stats().shards[0].size > 0
            ballast.unlink()
            lines = len(writer.lines)
            deadline = time.monotonic() + 20
            while not any(line["op"] == "ok" for line in writer.lines[lines:]):
                assert time.monotonic() < deadline, "inserts do not go on by themselves"
                time.sleep(0.05)
        writer.finish()
    shard.kill()
    stored_directory = tmp_path / "copy"  # a snapshot of it would not fit on the small disk
    shutil.copytree(shard.directory, stored_directory)
    calls = read_history(writer.history)
    copy = start_shard(directory=stored_directory, durability=level, capacity=150_000, shard_index=0)
    with connect([copy.address], spec=SPEC, prefetch=0) as replay:
        stored = stored_ids(replay, copy.directory)
        verdict = check_history(calls, stored[stored >= _PROBES + 1_000_000], 150_000 - 1000)
    figures.add(acknowledged=verdict.acknowledged, uncertain=verdict.uncertain, surfaced=verdict.surfaced)
    assert verdict.valid, verdict
    assert verdict.acknowledged


_PROBES = 1_000_000


def _fill(ballast):
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _until_refused(replay):
    deadline = time.monotonic() + 20
    refused = 0
    for number in range(10_000):
        assert time.monotonic() < deadline, "a full disk refuses nothing"
        try:
            replay.insert(rows(_PROBES + number, 1), timeout_s=0.2)
        except StorageFull as error:
            assert "room" in str(error) and "\n" not in str(error)
            refused += 1
        except ReplayTimeout as error:
            assert error.blocked_on == "disk"
            refused += 1
        if refused >= 3:
            return


@pytest.fixture
def journalled(start_shard):
    """A killed shard with three chunks in its journal, and the path of its last segment."""
    shard = start_shard(durability="journal", capacity=1000)
    with connect([shard.address], spec=SPEC, prefetch=0) as replay:
        for first in (0, 10, 20):
            assert replay.insert(rows(first, 5)).accepted == 5
    shard.kill()
    return shard, max((shard.directory / "journal").glob("*.log"))


def test_a_torn_end_is_cut_off(journalled, soak, figures):
    """At a few bytes of the last record in `make test`, at every third in the soak; the journal's own tests do all."""
    shard, segment = journalled
    whole = segment.read_bytes()
    size = _last_entry_bytes(whole)
    cuts = range(1, size, 3) if soak.full else sorted({1, size // 2, size - 1})
    for cut in cuts:
        segment.write_bytes(whole[:-cut])
        shard.start()
        with connect([shard.address], spec=SPEC, prefetch=0) as replay:
            ids = stored_ids(replay, shard.directory)
        shard.kill()
        assert sorted(ids.tolist()) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14], f"cut {cut} bytes short"
        for later in (shard.directory / "journal").glob("*.log"):
            later.unlink()
    figures.add(cuts=len(cuts))


def _last_entry_bytes(segment):
    """From the last entry's magic to the end."""
    return len(segment) - segment.rindex(b"HRJE")


def test_a_flipped_bit_inside_is_refused_by_name_and_can_be_salvaged(journalled, soak, figures):
    shard, segment = journalled
    whole = segment.read_bytes()
    second = whole.index(b"HRJE", whole.index(b"HRJE", whole.index(b"HRJE") + 1) + 1)
    end = len(whole) - _last_entry_bytes(whole)
    rng = np.random.default_rng(3)
    figures.seeds(3)
    for _ in range(soak.count(2, 25)):
        damaged = bytearray(whole)
        damaged[int(rng.integers(second, end))] ^= 1 << int(rng.integers(8))
        for other in (shard.directory / "journal").glob("*.log*"):
            other.unlink()
        segment.write_bytes(damaged)
        code, errors = shard.run_to_end()
        assert code in (1, 2), (code, errors)
        assert segment.name in errors and "--salvage" in errors and "Traceback" not in errors, errors
        assert segment.read_bytes() == bytes(damaged), "a refused journal was changed"
        shard.start("--salvage")
        with connect([shard.address], spec=SPEC, prefetch=0) as replay:
            ids = set(stored_ids(replay, shard.directory).tolist())
            assert replay.insert(rows(100, 2)).accepted == 2
        assert ids <= {*range(5), *range(10, 15), *range(20, 25)} and len(ids) >= 5
        shard.kill()
        shard.start()  # the damage is not met twice
        with connect([shard.address], spec=SPEC, prefetch=0) as replay:
            assert set(stored_ids(replay, shard.directory).tolist()) == ids | {100, 101}
        shard.kill()
        for base in shard.directory.rglob("*.h5"):
            base.unlink()
    figures.add(flips=soak.count(2, 25))
