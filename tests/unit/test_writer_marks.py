"""What a shard remembers of its writers."""

import random

import pytest

from replay_server import InvalidRecord, StaleEpoch
from replay_server.errors import WriterEvicted
from replay_server.messages import Stamp
from replay_server.writer_marks import Standing, WriterMarks


@pytest.mark.parametrize("seed", range(20))
def test_the_marks_are_a_set_for_every_order_inside_the_window(seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    marks, stored, newest = WriterMarks(), set(), 0
    marks.open(1, 0)
    for _ in range(3000):
        sequence = max(newest + rng.randint(-300, 3), 0)
        newest = max(newest, sequence)
        expected = Standing.STORED if sequence in stored else Standing.FRESH
        assert marks.standing(Stamp(1, 0, sequence)) is expected
        if rng.random() < 0.7:
            marks.add(Stamp(1, 0, sequence))
            stored.add(sequence)


def test_holes_far_back_count_as_stored_so_that_a_mark_stays_small():
    marks = WriterMarks()
    marks.open(1, 0)
    for sequence in range(1, 20_000):
        assert marks.standing(Stamp(1, 0, sequence)) is Standing.FRESH
        marks.add(Stamp(1, 0, sequence))
    (row,) = marks.to_json()
    assert len(str(row[3])) <= 4096 / 4
    assert marks.standing(Stamp(1, 0, 0)) is Standing.STORED
    assert marks.standing(Stamp(1, 0, 19_999)) is Standing.STORED
    assert marks.standing(Stamp(1, 0, 20_000)) is Standing.FRESH


def test_a_leap_forward_keeps_what_is_near_it():
    marks = WriterMarks()
    marks.open(1, 0)
    marks.add(Stamp(1, 0, 0))
    marks.add(Stamp(1, 0, 2**62))
    assert marks.standing(Stamp(1, 0, 2**62)) is Standing.STORED
    assert marks.standing(Stamp(1, 0, 2**62 - 1)) is Standing.FRESH
    with pytest.raises(InvalidRecord, match="out of range"):
        marks.standing(Stamp(1, 0, 2**63))


def test_the_writer_silent_for_longest_is_forgotten_and_then_refused():
    marks = WriterMarks(limit=3)
    for writer in (1, 2, 3):
        marks.open(writer, 0)
        marks.add(Stamp(writer, 0, 0))
    assert marks.standing(Stamp(1, 0, 0)) is Standing.STORED
    marks.open(4, 0)
    with pytest.raises(WriterEvicted, match="writer 2 "):
        marks.standing(Stamp(2, 0, 1, opens=False))
    assert marks.standing(Stamp(1, 0, 1, opens=False)) is Standing.FRESH
    assert marks.standing(Stamp(2, 0, 0)) is Standing.OPENING


def test_a_newer_epoch_has_to_say_that_it_opens():
    marks = WriterMarks()
    marks.open(1, 3)
    assert marks.standing(Stamp(1, 4, 0)) is Standing.OPENING
    with pytest.raises(WriterEvicted):
        marks.standing(Stamp(1, 4, 1, opens=False))
    with pytest.raises(StaleEpoch):
        marks.standing(Stamp(1, 2, 0))


def test_marks_travel_as_json_and_nonsense_changes_nothing():
    marks = WriterMarks()
    for writer, epoch, sequences in ((9, 1, (0, 1, 5)), (2**64 - 1, 2**32 - 1, (7,))):
        marks.open(writer, epoch)
        for sequence in sequences:
            marks.add(Stamp(writer, epoch, sequence))
    other = WriterMarks()
    other.load(marks.to_json())
    assert other.to_json() == marks.to_json()
    for nonsense in ([[1, 2, 3, 4]], [["1", 2, 3, "4"]], [[1, 2, 3]], [[1, 2, 3, "xyz"]]):
        with pytest.raises((TypeError, ValueError)):
            other.load(nonsense)
    assert other.to_json() == marks.to_json()
