"""Interleaving against a slow one-list draft, exact chances, and rankers whose order is known."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from actors.envs.news_session import NewsSessionVectorEnv
from actors.envs.news_session.comparison import compare
from actors.interleaving import Comparison, probabilistic, team_draft


def rankings(batch: int, items: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, items)).argsort(axis=1)


def test_a_draft_is_picks_in_turns() -> None:
    first, second = rankings(200, 9, 0)[:, :5], rankings(200, 9, 1)[:, :5]
    drafted = team_draft(first, second, np.random.default_rng(2))
    for row in range(200):
        left = [first[row].tolist(), second[row].tolist()]
        for place, team in enumerate(drafted.share[row].astype(int)):
            expected = next(item for item in left[team] if item not in drafted.lists[row, :place])
            assert drafted.lists[row, place] == expected
        teams = drafted.share[row]
        assert teams[0] != teams[1] and teams[2] != teams[3]
    assert abs(drafted.share[:, [0, 2, 4]].mean() - 0.5) < 0.08


def test_a_list_drafted_from_equals_is_their_list() -> None:
    lists = rankings(50, 9, 0)[:, :5]
    np.testing.assert_array_equal(team_draft(lists, lists, np.random.default_rng(0)).lists, lists)


def slow_chances(first: list[int], second: list[int], slots: int, tau: float) -> dict[tuple[int, ...], float]:
    """P(list) with every coin and draw written out."""
    chances = {}
    for shown in permutations(first, slots):
        chance = 1.0
        for place, item in enumerate(shown):
            mean = 0.0
            for ranking in (first, second):
                weight = {i: (rank + 1) ** -tau for rank, i in enumerate(ranking) if i not in shown[:place]}
                mean += 0.5 * weight[item] / sum(weight.values())
            chance *= mean
        chances[shown] = chance
    return chances


def test_probabilistic_lists_are_as_likely_as_coins_and_ranks_say() -> None:
    first, second = [0, 1, 2, 3], [2, 0, 3, 1]
    chances = slow_chances(first, second, 2, 1.0)
    assert sum(chances.values()) == pytest.approx(1.0)
    batch = 30_000
    drawn = probabilistic(np.tile(first, (batch, 1)), np.tile(second, (batch, 1)), 2, np.random.default_rng(0), tau=1.0)
    counts = Counter(map(tuple, drawn.lists.tolist()))
    assert sum((counts[shown] - batch * p) ** 2 / (batch * p) for shown, p in chances.items()) < 31.3  # 11 degrees
    row = int(np.flatnonzero((drawn.lists == [0, 2]).all(axis=1))[0])
    own = [(1.0, 0.5), (1 / 3 / (1 / 2 + 1 / 3 + 1 / 4), 1.0 / (1.0 + 1 / 3 + 1 / 4))]  # weights of 0, then of 2
    total = 1 + 1 / 2 + 1 / 3 + 1 / 4
    expected = [(own[0][1] / total) / ((own[0][0] + own[0][1]) / total), own[1][1] / sum(own[1])]
    np.testing.assert_allclose(drawn.share[row], expected)


def test_equals_tie() -> None:
    lists, rng = rankings(4000, 20, 0), np.random.default_rng(1)
    for drafted in (team_draft(lists[:, :5], lists[:, :5], rng), probabilistic(lists, lists, 5, rng)):
        compared = Comparison.of(drafted.share, rng.random((4000, 5)) < 0.3)
        assert abs(compared.credits[0] - compared.credits[1]) < 4 * np.sqrt(sum(compared.credits))
        assert compared.p_value > 0.01
    assert compared.ties == 4000  # marginalised, equals share every click


def test_the_sign_test_is_that_of_a_fair_coin() -> None:
    clicked = np.zeros((100, 2), dtype=bool)
    share = np.tile([0.0, 1.0], (100, 1))
    clicked[:30, 0] = clicked[30:40, 1] = clicked[40:50] = True
    compared = Comparison.of(share, clicked)
    assert (compared.first, compared.second, compared.ties) == (30, 10, 60)
    assert compared.credits == (40.0, 20.0) and compared.preference == 0.25
    assert compared.p_value == pytest.approx(0.0022, abs=0.0006)  # exact binomial: 0.00222
    nothing = Comparison.of(share, np.zeros((100, 2), dtype=bool))
    assert nothing.preference == 0.5 and nothing.p_value == 1.0


def test_the_ranker_of_better_click_through_rate_wins_although_it_earns_less() -> None:
    env = NewsSessionVectorEnv(100, articles=2000, obs_mode="ids")
    build = {name: factory(env) for name, factory in env.baselines().items()}
    greedy, lasting = build["click probability"], build["click probability x worth"]
    compared = compare(env, lasting, greedy, 25, seed=0)
    assert compared.preference > 0.55 and compared.p_value < 1e-4
    assert compare(env, greedy, lasting, 25, seed=0).preference < 0.45
    assert compare(env, greedy, greedy, 25, seed=0).p_value > 0.01
    assert compare(env, build["random"], greedy, 10, seed=0).preference > 0.65
