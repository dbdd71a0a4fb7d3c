"""The check of what a replay holds of a stamped environment finds what it is there for."""

import numpy as np
import pytest
from kit.stamped import PIDS, PLACES, STEPS, check_stamps, stamps_of


def sequence(process, place, steps):
    return np.array([[process, place, step] for step in steps])


def test_stamps_survive_float32():
    stamps = np.array([[PIDS - 1, PLACES - 1, STEPS - 1], [1, 0, 12_345_677]])
    assert np.array_equal(stamps_of((stamps / [PIDS, PLACES, STEPS]).astype(np.float32)), stamps)


def test_whole_sequences_pass():
    check_stamps(
        np.concatenate([sequence(7, 0, range(9)), sequence(7, 1, range(5)), sequence(8, 0, [0])]), complete=True
    )
    check_stamps(sequence(7, 0, range(4, 9)), complete=False)


@pytest.mark.parametrize(
    ("steps", "message"),
    [([0, 1, 1, 2], "1 steps are there twice"), ([0, 1, 3], "1 steps of place 2"), ([1, 2], "begins with step 1")],
)
def test_what_is_wrong_is_found(steps, message):
    with pytest.raises(AssertionError, match=message):
        check_stamps(np.concatenate([sequence(7, 0, range(9)), sequence(9, 2, steps)]), complete=True)
