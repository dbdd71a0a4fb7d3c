"""A shard's life number: never given twice, whatever ends the process."""

import pytest

from replay_server.disk import OsDisk
from replay_server.errors import JournalError, StorageFull
from replay_server.incarnation import next_incarnation


def test_every_life_gets_the_next_number(tmp_path):
    directory = str(tmp_path / "shard")
    assert [next_incarnation(directory, first=7) for _ in range(3)] == [7, 8, 9]


def test_two_new_directories_start_with_different_numbers(tmp_path):
    assert next_incarnation(str(tmp_path / "a")) != next_incarnation(str(tmp_path / "b"))


def test_after_the_last_number_comes_zero(tmp_path):
    assert [next_incarnation(str(tmp_path), first=2**32 - 1) for _ in range(2)] == [2**32 - 1, 0]


def test_a_damaged_number_is_refused(tmp_path):
    next_incarnation(str(tmp_path), first=1234)
    path = tmp_path / "incarnation"
    text = path.read_bytes()
    for at in range(len(text) - 1):
        path.write_bytes(text[:at] + bytes([text[at] ^ 4]) + text[at + 1 :])
        with pytest.raises(JournalError, match="incarnation: damaged"):
            next_incarnation(str(tmp_path))


class Failing(OsDisk):
    """Fails at call number `at` of those that write, as a crash or a full disk would."""

    def __init__(self, at):
        self.left = at

    def _step(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")

    def open(self, path):
        self._step()
        return super().open(path)

    def write(self, handle, offset, parts):
        self._step()
        return super().write(handle, offset, parts)

    def fsync(self, handle):
        self._step()
        super().fsync(handle)

    def rename(self, old, new):
        self._step()
        super().rename(old, new)

    def fsync_dir(self, directory):
        self._step()
        super().fsync_dir(directory)


@pytest.mark.parametrize("at", range(5))
def test_a_failure_at_any_step_gives_no_number_twice(tmp_path, at):
    given = [next_incarnation(str(tmp_path), first=1)]
    with pytest.raises(StorageFull, match="make room"):
        next_incarnation(str(tmp_path), Failing(at))
    given += [next_incarnation(str(tmp_path)) for _ in range(2)]
    assert given == sorted(set(given))
