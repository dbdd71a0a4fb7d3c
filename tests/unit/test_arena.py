"""Memory shared with a shard: leases, and what a shard refuses to open."""

import fcntl
import gc
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from replay_server.arena import MEMFD_NAME, Arena
from replay_server.attachments import Attachments
from replay_server.errors import InvalidRecord, NotShared
from replay_server.sharing import Sharing

MIB = 1 << 20


@pytest.fixture
def attachments():
    made = Attachments(most=2, largest=2 * MIB)
    yield made
    made.close()


def test_a_region_is_free_again_when_nothing_views_it():
    arena = Arena(MIB)
    region = arena.lease(100_000)
    assert arena.leased >= 100_000
    view = np.frombuffer(region.memory[10:90].data, "<f8")[3:5].reshape(2, 1)
    del region
    gc.collect()
    assert arena.leased >= 100_000
    del view
    assert arena.leased == 0


def test_regions_never_overlap_and_full_is_none():
    rng = np.random.default_rng(3)
    arena = Arena(MIB)
    held = []
    refused = 0
    for turn in range(2000):
        if held and (rng.random() < 0.45 or len(held) > 30):
            region, mark = held.pop(int(rng.integers(len(held))))
            assert (region.memory == mark).all()
            del region
            continue
        size = int(rng.integers(1, 200_000))
        region = arena.lease(size)
        if region is None:
            refused += 1
            continue
        assert len(region.memory) == size
        assert region.offset % 16 == 0
        region.memory[:] = turn % 251
        held.append((region, turn % 251))
    assert refused > 10
    assert all((region.memory == mark).all() for region, mark in held)
    held.clear()
    region = None
    gc.collect()
    assert arena.leased == 0
    assert arena.lease(MIB - 4096) is not None
    assert Arena(MIB).lease(MIB) is None


def test_what_one_side_writes_the_other_reads(attachments):
    arena = Arena(MIB)
    session = attachments.attach(arena.ticket())
    region = arena.lease(5000)
    attachments.part(session, region.offset, 5000)[:] = 7
    assert (region.memory == 7).all()
    attachments.detach(session)
    attachments.detach(session)
    with pytest.raises(NotShared, match="session"):
        attachments.memory(session)


def test_regions_outlive_the_arena_and_its_session(attachments):
    arena = Arena(MIB)
    session = attachments.attach(arena.ticket())
    region = arena.lease(5000)
    written = attachments.part(session, region.offset, 5000)
    attachments.detach(session)
    arena.close()
    del arena
    gc.collect()
    written[:] = 9
    assert (region.memory == 9).all()


@pytest.mark.parametrize(("offset", "length"), [(0, MIB + 1), (8, 16), (MIB, 1), (2**63, 2**63), (2**64 - 16, 32)])
def test_parts_outside_the_memory_are_refused(attachments, offset, length):
    arena = Arena(MIB)
    session = attachments.attach(arena.ticket())
    with pytest.raises(InvalidRecord):
        attachments.part(session, offset, length)


def spoiled(**changes):
    arena = Arena(MIB)
    return arena, {**arena.ticket(), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 5},
        {"pid": 1},
        {"descriptor": 0},
        {"descriptor": 10**6},
        {"inode": 5},
        {"size": MIB - 4096},
        {"size": 2 * MIB},
        {"size": 2**62},
        {"nonce": "00" * 32},
    ],
    ids=str,
)
def test_what_is_not_the_clients_memory_is_refused(attachments, changes):
    _arena, ticket = spoiled(**changes)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotShared):
        attachments.attach(ticket)
    assert len(attachments) == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": "x"},
        {"pid": None},
        {"pid": -1},
        {"size": 10},
        {"nonce": 5},
        {"nonce": "zz"},
        {"nonce": "00"},
        {"descriptor": float("inf")},
    ],
    ids=str,
)
def test_a_ticket_that_is_none_is_refused(attachments, changes):
    _arena, ticket = spoiled(**changes)
    with pytest.raises(InvalidRecord):
        attachments.attach(ticket)


def test_memory_that_could_shrink_under_the_shard_is_refused(attachments):
    descriptor = os.memfd_create(MEMFD_NAME, os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, MIB)
        os.pwrite(descriptor, bytes(32), 0)
        ticket = {"pid": os.getpid(), "descriptor": descriptor, "inode": os.fstat(descriptor).st_ino, "size": MIB}
        with pytest.raises(NotShared, match="sealed"):
            attachments.attach({**ticket, "nonce": "00" * 32})
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        attachments.attach({**ticket, "nonce": "00" * 32})
    finally:
        os.close(descriptor)


def test_files_that_are_no_memory_are_never_opened(attachments, tmp_path):
    pipe = tmp_path / "memfd:headrace-arena"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        _arena, ticket = spoiled(descriptor=descriptor)
        with pytest.raises(NotShared, match="not its shared memory"):
            attachments.attach(ticket)
    finally:
        os.close(descriptor)


def test_sessions_and_their_bytes_are_bounded(attachments):
    arenas, large = [Arena(MIB) for _ in range(3)], Arena(2 * MIB + 4096)
    first = attachments.attach(arenas[0].ticket())
    attachments.attach(arenas[1].ticket())
    with pytest.raises(NotShared, match="2 clients already"):
        attachments.attach(arenas[2].ticket())
    attachments.detach(first)
    with pytest.raises(NotShared, match="at most 2097152"):
        attachments.attach(large.ticket())
    attachments.attach(arenas[2].ticket())


def test_the_memory_of_a_killed_client_is_let_go(attachments):
    code = (
        "import json, sys; from replay_server.arena import Arena; arena = Arena(1 << 20); "
        "print(json.dumps(arena.ticket()), flush=True); sys.stdin.read()"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        attachments.attach(json.loads(client.stdout.readline()))
        attachments.detach_ended()
        assert len(attachments) == 1
    finally:
        client.kill()
        client.wait(10)
        client.stdin.close()
        client.stdout.close()
    attachments.detach_ended()
    assert len(attachments) == 0


def test_a_machine_short_of_memory_refuses_a_lease(monkeypatch):
    arena = Arena(MIB)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    assert arena.lease(5000) is None
    monkeypatch.undo()
    assert arena.lease(5000) is not None


def test_memory_is_not_given_up_under_a_lease(monkeypatch):
    """The descriptor would be closed, or another file's by then, when pages are asked for."""
    sharing = Sharing(lambda *_: None)
    sharing.begin()
    arena = sharing._arena
    sharing.answered(arena, 7)
    lost = threading.Thread(target=sharing.lost, args=(7,))
    lease, inode = arena.lease, os.fstat(arena._descriptor).st_ino

    def while_it_is_lost(size):
        lost.start()
        lost.join(0.1)
        assert os.fstat(arena._descriptor).st_ino == inode
        return lease(size)

    monkeypatch.setattr(arena, "lease", while_it_is_lost)
    assert sharing.lease(5000).session == 7
    lost.join(20)
    assert sharing._arena is not arena
    sharing.close()
