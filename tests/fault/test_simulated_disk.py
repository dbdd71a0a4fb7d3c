"""The simulated disk keeps what a real one keeps and loses what a real one may lose."""

from __future__ import annotations

import numpy as np
import pytest

from fault.simulated_disk import Crashed, SimulatedDisk


def content(disk, name):
    return disk.read(name) if name.removeprefix("d/") in disk.list("d") else None


def test_a_kill_loses_nothing_and_power_loss_what_was_not_synced():
    seen = set()
    for seed in range(200):
        disk = SimulatedDisk(np.random.default_rng(seed))
        handle = disk.open("d/a")
        assert disk.write(handle, 0, [b"synced"]) == 6
        disk.fsync(handle)
        disk.fsync_dir("d")
        disk.write(handle, 6, [b" and ", np.frombuffer(b"more", np.uint8)])
        disk.rename("d/a", "d/b")
        disk.crash(power=False)
        assert content(disk, "d/b") == b"synced and more"
        disk.crash(power=True)
        name = "d/a" if content(disk, "d/a") is not None else "d/b"
        left = content(disk, name)
        assert left.startswith(b"synced") and len(left) <= 15
        assert left[6:] in (b" and more"[: len(left) - 6], bytes(len(left) - 6))
        seen.add((name, left))
        before = disk.read(name)
        disk.crash(power=True)
        assert content(disk, name) == before
    assert {name for name, _ in seen} == {"d/a", "d/b"}
    assert {b"synced", b"synced and more"} <= {left for _, left in seen}


def test_a_full_disk_takes_a_part_then_nothing_and_overwrites_still_work():
    disk = SimulatedDisk(np.random.default_rng(0))
    handle = disk.open("d/a")
    disk.room = 5
    assert disk.write(handle, 0, [b"abcdefgh"]) == 5
    with pytest.raises(OSError, match="No space"):
        disk.write(handle, 5, [b"x"])
    assert disk.write(handle, 1, [b"BC"]) == 2
    assert content(disk, "d/a") == b"aBCde"
    disk.unlink("d/a")
    assert disk.write(disk.open("d/b"), 0, [b"again"]) == 5


def test_a_crash_inside_a_write_leaves_a_part_of_it_and_no_handle_or_lock():
    sizes = set()
    for seed in range(50):
        disk = SimulatedDisk(np.random.default_rng(seed))
        handle = disk.lock("d/a")
        with pytest.raises(BlockingIOError):
            disk.lock("d/a")
        disk.crash_in = 1
        disk.write(handle, 0, [b"1234"])
        with pytest.raises(Crashed):
            disk.write(handle, 4, [b"5678"])
        disk.crash(power=False)
        assert b"12345678".startswith(content(disk, "d/a"))
        sizes.add(len(content(disk, "d/a")))
        with pytest.raises(OSError, match="descriptor"):
            disk.write(handle, 0, [b"x"])
        disk.close(disk.lock("d/a"))
        disk.lock("d/a")
    assert {4, 8} <= sizes and len(sizes) > 2


def test_short_writes_happen():
    disk = SimulatedDisk(np.random.default_rng(0))
    disk.short_writes = 0.5
    handle = disk.open("d/a")
    assert {disk.write(handle, 0, [b"abc"]) for _ in range(50)} == {1, 2, 3}
