"""Seeds are stable and their families never meet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.seeds import SeedFamily, derive, generator


def test_seeds_never_change_between_versions() -> None:
    assert derive(0, "actor", 3) == 54140897
    assert derive(0, "actor", 3, family=SeedFamily.FINAL) == 54140897 + (2 << 28)
    assert generator(0, "actor", 3).integers(1 << 30) == 364779249


@given(seed=st.integers(0, 2**64), key=st.integers(0, 1000))
def test_families_are_disjoint_even_with_offsets(seed: int, key: int) -> None:
    ranges = []
    for family in SeedFamily:
        start = derive(seed, "evaluation", key, family=family)
        assert start >= 0 and start + (1 << 20) <= 1 << 30
        ranges.append((start >> 28, (start + (1 << 20) - 1) >> 28))
    assert ranges == [(0, 0), (1, 1), (2, 2)]


def test_keys_and_their_order_matter() -> None:
    seeds = [
        derive(0),
        derive(1),
        derive(0, "a", 1),
        derive(0, 1, "a"),
        derive(0, "a", 2),
        derive(0, "a"),
        derive(0, "a1"),
    ]
    assert len(set(seeds)) == len(seeds)
