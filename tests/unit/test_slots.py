"""Slots in two linked lists against two Python lists."""

import numpy as np
import pytest

from replay_server.batches import KEY_DTYPE
from replay_server.slots import Slots, order_of, starts_of_runs


@pytest.mark.parametrize("seed", range(8))
def test_a_random_walk_agrees_with_two_lists(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    capacity = int(rng.choice([1, 2, 3, 9, 50]))
    slots = Slots(capacity)
    live, free, generations = [], list(range(capacity)), [0] * capacity
    for _ in range(150):
        kind = rng.integers(6)
        if kind <= 2:
            chosen = rng.integers(0, capacity, rng.integers(0, 7)) if kind else slots.next_free(int(rng.integers(0, 7)))
            slots.store(chosen)
            for slot in chosen.tolist():
                generations[slot] += 2 if slot in live else 1
                (live if slot in live else free).remove(slot)
                live.append(slot)
        elif kind <= 4:
            count = int(rng.integers(0, len(live) + 1))
            chosen = slots.oldest(count) if kind == 3 else np.array(rng.permutation(live)[:count], np.int64)
            if kind == 3:
                assert chosen.tolist() == live[:count]
            slots.remove(chosen)
            for slot in chosen.tolist():
                generations[slot] += 1
                live.remove(slot)
            free = chosen.tolist() + free
        elif rng.random() < 0.1:
            slots.clear()
            for slot in live:
                generations[slot] += 1
            live, free = [], list(range(capacity))
        slots.check_valid()
        assert slots.order().tolist() == live
        assert slots.next_free(capacity).tolist() == free
        assert slots.holding().tolist() == sorted(live)
        assert slots.generations.tolist() == generations
        other = Slots(capacity)
        other.restore(slots.order(), slots.free_order(), slots.generations[: slots.used])
        other.check_valid()
        for name in ("next", "prev", "generations"):
            np.testing.assert_array_equal(getattr(other, name), getattr(slots, name))


def test_overwriting_the_oldest_goes_round_in_one_piece():
    slots = Slots(100)
    for _ in range(50):
        free = slots.next_free(7)
        chosen = np.concatenate([free, slots.oldest(7 - len(free))])
        assert len(starts_of_runs(chosen)) <= 2  # two only where it starts over
        slots.store(chosen)
        slots.check_valid()


def test_a_queue_stays_in_few_pieces_and_touches_few_slots():
    slots = Slots(10_000)
    for _ in range(200):
        slots.store(slots.next_free(30))
        if slots.size > 100:
            slots.remove(np.sort(slots.oldest(30)))
        assert len(starts_of_runs(slots.next_free(30))) <= 3
    assert slots.used <= 150


def test_runs():
    for slots, starts in (
        ([5], [0]),
        ([3, 4, 5], [0]),
        ([3, 4, 6, 7, 2], [0, 2, 4]),
        ([2, 1], [0, 1]),
        ([4, 4], [0, 1]),
    ):
        assert starts_of_runs(np.array(slots)).tolist() == starts


def test_the_order_can_be_read_from_a_copy_of_the_links():
    slots = Slots(20)
    slots.store(np.array([7, 3, 9, 3]))
    links, size = slots.next.copy(), slots.size
    slots.clear()
    assert order_of(links, slots.live, size).tolist() == [7, 9, 3]


def key(slot, generation, shard=1, incarnation=2):
    return np.array([(slot, shard, incarnation, generation)], KEY_DTYPE)


def test_only_the_key_of_a_record_that_is_there_is_fresh():
    slots = Slots(4)
    slots.store(np.array([2]))
    assert [part.tolist() for part in slots.fresh(key(2, 1), 1, 2)] == [[2], [0]]
    slots.remove(np.array([2]))
    for generation in range(4):  # 2 is the free slot's own, which no record ever had
        assert len(slots.fresh(key(2, generation), 1, 2)[0]) == 0
    for slot in (0, 3, 4, 5, 2**32 - 1):
        assert len(slots.fresh(key(slot, 0), 1, 2)[0]) == 0


def test_a_key_beyond_the_last_slot_reads_nothing():
    slots = Slots(4)
    slots.generations = np.ones(8, np.uint32)[:4]  # what lies behind would fit the key
    assert len(slots.fresh(key(3, 1), 1, 2)[0]) == 1
    assert len(slots.fresh(key(4, 1), 1, 2)[0]) == 0


def test_a_generation_starts_over_after_its_largest():
    slots = Slots(2)
    slots.store(np.array([0]))
    slots.generations[0] = 2**32 - 1
    slots.store(np.array([0]))
    assert slots.generations[0] == 1
    slots.check_valid()


def swap(slots):
    slots.next[0], slots.next[1] = slots.next[1], slots.next[0]


@pytest.mark.parametrize(
    "spoil",
    [
        swap,
        lambda slots: slots.prev.__setitem__(1, 2),
        lambda slots: slots.generations.__setitem__(1, 4),
        lambda slots: slots.generations.__setitem__(8, 2),
        lambda slots: slots.generations.__setitem__(3, 1),
        lambda slots: setattr(slots, "size", 2),
        lambda slots: setattr(slots, "used", 3),
    ],
)
def test_check_valid_sees_what_is_wrong(spoil):
    slots = Slots(9)
    slots.store(np.array([0, 1, 2, 3]))
    slots.remove(np.array([3]))
    slots.check_valid()
    spoil(slots)
    with pytest.raises(AssertionError):
        slots.check_valid()
