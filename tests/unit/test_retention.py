"""Which segments of a journal somebody still needs."""

import numpy as np

from replay_server.occupancy import Occupancy
from replay_server.retention import Retention, Segment


def test_a_segment_whose_queue_ran_empty_once_waits_for_the_removals_of_what_came_after():
    """Found by the simulation: a power loss took the removals, and the segment with the records was gone already."""
    occupancy = Occupancy(8)
    kept = Retention(occupancy, [Segment(1, "1", 100, 5), Segment(2, "2", 100, 9)])
    assert (
        kept.needless(position=4, durable=3, writing=True) is None
    )  # empty, but nobody knows yet whether that is on disk
    occupancy.store(np.array([0, 1]), 1)
    assert kept.needless(position=5, durable=5, writing=True) is None
    occupancy.remove(np.array([0, 1]))
    assert kept.needless(position=9, durable=5, writing=True) is None
    assert kept.needless(position=10, durable=8, writing=True) is None
    assert kept.needless(position=10, durable=9, writing=True) is kept.segments[0]
