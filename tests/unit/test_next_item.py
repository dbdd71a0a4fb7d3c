"""NextItem's rules against a one-user loop, its draws against their probabilities, its ladder against its bound."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.stats import chisquare

import actors.envs  # noqa: F401  registers the ids
from actors.envs.next_item import NextItem, NextItemEnv, NextItemModel, NextItemVectorEnv
from actors.envs.next_item.baselines import BASELINES, Popular, popularity
from actors.envs.next_item.behaviour import Behaviour
from actors.envs.next_item.bounds import best_return
from actors.envs.next_item.catalogue import Catalogue, draw_catalogue
from actors.envs.next_item.response import MatchResponse
from actors.envs.next_item.topics import TopicChain, draw_topics
from actors.evaluator import play_first_episodes
from actors.vector_steps import VectorSteps

ID = "headrace/NextItem-v0"
SMALL = {"items": 40, "topics": 4}


def simulation_of(num_users: int, seed: int = 0, **constants: Any) -> NextItem:
    simulation = NextItem(NextItemModel(**constants), num_users)
    simulation.generator = np.random.default_rng(seed)
    simulation.reset()
    return simulation


def slow_draw(probabilities: Any, uniform: np.floating[Any]) -> int:
    """The index whose interval of the cumulated probabilities holds the number."""
    return min(bisect_right(list(accumulate(probabilities)), float(uniform)), len(probabilities) - 1)


class SlowUser:
    """One user, straight from the definition."""

    def __init__(self, simulation: NextItem, draws: Any) -> None:
        self.chain, self.catalogue = simulation.chain, simulation.catalogue
        self.topic = slow_draw(self.chain.stationary, draws[0])
        self.consumed = [self._item(draws[1])]

    def _item(self, draw: Any) -> int:
        n = self.catalogue.items_of.shape[1]
        weight = [r**-0.8 for r in range(1, n + 1)]
        return int(self.catalogue.items_of[self.topic, slow_draw([w / sum(weight) for w in weight], draw)])

    def step(self, shown: int, draws: Any) -> float:
        self.topic = slow_draw(self.chain.matrix[self.topic], draws[0])
        self.consumed.append(self._item(draws[1]))
        place = (
            list(self.catalogue.items_of[self.topic]).index(shown)
            if shown in self.catalogue.items_of[self.topic]
            else None
        )
        return float(place is not None and draws[2] < (place + 1) ** -0.8)

    def seen(self, length: int) -> list[int]:
        return ([-1] * length + self.consumed)[-length:]


def test_step_follows_the_definition_user_by_user() -> None:
    simulation = NextItem(NextItemModel(**SMALL, history_length=4), 30)
    simulation.generator, mirror = np.random.default_rng(3), np.random.default_rng(3)
    simulation.reset()
    first = mirror.random((2, 30), dtype=np.float32)
    slow = [SlowUser(simulation, first[:, b]) for b in range(30)]
    rng = np.random.default_rng(1)
    clicks = 0.0
    for turn in range(40):
        if turn == 15:  # some users leave while the others go on
            simulation.reset(np.array([2, 7, 29]))
            fresh = mirror.random((2, 3), dtype=np.float32)
            for column, user in enumerate((2, 7, 29)):
                slow[user] = SlowUser(simulation, fresh[:, column])
        seen = simulation.observe()["history"]
        assert [user.seen(4) for user in slow] == seen.tolist()
        action, draws = rng.integers(40, size=30), mirror.random((3, 30), dtype=np.float32)
        outcome = simulation.step(action)
        expected = [user.step(int(action[b]), draws[:, b]) for b, user in enumerate(slow)]
        assert outcome.reward.tolist() == expected
        assert outcome.info["next_item"].tolist() == [user.consumed[-1] for user in slow]
        assert not outcome.terminated.any() and not outcome.truncated.any()
        clicks += sum(expected)
    assert clicks > 20


def test_topics_and_items_are_drawn_with_their_probabilities() -> None:
    users = 200_000
    simulation = simulation_of(users, seed=11)
    catalogue, chain = simulation.catalogue, simulation.chain
    began = np.bincount(simulation.topic, minlength=20)
    assert chisquare(began, chain.stationary * users).pvalue > 1e-3
    simulation.topic[:] = 7
    item = simulation.step(np.zeros(users, dtype=np.int64)).info["next_item"]
    after = np.bincount(simulation.topic, minlength=20)
    likely = chain.matrix[7] * users > 5
    assert after[chain.matrix[7] == 0].sum() == 0
    assert (
        chisquare(after[likely], chain.matrix[7][likely] / chain.matrix[7][likely].sum() * after[likely].sum()).pvalue
        > 1e-3
    )
    ranks = np.bincount(catalogue.rank_of[item], minlength=50)
    assert chisquare(ranks, catalogue.taste * users).pvalue > 1e-3
    np.testing.assert_array_equal(catalogue.topic_of[item], simulation.topic)


def test_clicks_come_with_their_probability() -> None:
    users = 100_000
    simulation = simulation_of(users, seed=12)
    simulation.topic[:] = 3
    expected = simulation.click_probabilities()[3]
    for item in simulation.catalogue.items_of[3, [0, 1, 9, 49]]:
        simulation.topic[:] = 3
        share = simulation.step(np.full(users, item)).reward.mean()
        assert abs(share - expected[item]) < 4 * np.sqrt(expected[item] / users)
    rank_two = simulation.catalogue.items_of[5, 1]
    assert expected[rank_two] == pytest.approx(simulation.chain.matrix[3, 5] * 2**-0.8)


def test_what_is_shown_changes_nothing_of_what_is_consumed() -> None:
    one, two = simulation_of(50, seed=4), simulation_of(50, seed=4)
    for _ in range(20):
        first = one.step(np.zeros(50, dtype=np.int64)).info["next_item"]
        second = two.step(one.catalogue.items_of[one.topic, 0]).info["next_item"]
        np.testing.assert_array_equal(first, second)


def test_chances_to_be_consumed_next_are_a_distribution_and_the_stationary_one_is_popularity() -> None:
    simulation = simulation_of(1)
    chance = simulation.next_item_probabilities()
    np.testing.assert_allclose(chance.sum(axis=1), 1.0)
    np.testing.assert_allclose(simulation.chain.stationary @ chance, popularity(simulation), rtol=1e-9)
    np.testing.assert_allclose(simulation.chain.stationary @ simulation.chain.matrix, simulation.chain.stationary)


def test_the_matrix_is_a_part_of_staying_and_a_part_of_wandering() -> None:
    rows = np.concatenate([draw_topics(NextItemModel(catalogue_seed=seed)).matrix for seed in range(40)])
    diagonal = np.tile(np.eye(20, dtype=bool), (40, 1))
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    assert rows[diagonal].min() >= 0.7
    wandering = rows[~diagonal].reshape(800, 19) / 0.3
    # One of 20 parts of Dirichlet(.3) has mean 1/20 and variance (1/20)(19/20) / (20 x .3 + 1).
    matrix = draw_topics(NextItemModel()).matrix - 0.7 * np.eye(20)
    assert np.abs(np.corrcoef(matrix)[~np.eye(20, dtype=bool)]).max() < 0.95  # every topic has followers of its own
    assert wandering.mean() == pytest.approx(0.05, rel=0.05)
    assert wandering.var() == pytest.approx(0.05 * 0.95 / 7, rel=0.1)


def test_a_chain_that_never_wanders_keeps_its_topic() -> None:
    chain = TopicChain(np.eye(3))
    topic = np.array([0, 1, 2, 2])
    edge = np.array([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0)), 0.0], dtype=np.float32)
    np.testing.assert_array_equal(chain.follow(topic, edge), topic)
    np.testing.assert_allclose(chain.stationary, 1 / 3)


def test_every_item_has_one_topic_and_one_rank() -> None:
    catalogue = draw_catalogue(NextItemModel(**SMALL))
    assert sorted(catalogue.items_of.reshape(-1).tolist()) == list(range(40))
    for item in range(40):
        assert catalogue.items_of[catalogue.topic_of[item], catalogue.rank_of[item]] == item
    last = np.nextafter(np.float32(1), np.float32(0))
    edge = catalogue.draw(np.array([1, 1]), np.array([0.0, last], dtype=np.float32))
    assert edge.tolist() == catalogue.items_of[1, [0, 9]].tolist()
    other = draw_catalogue(NextItemModel(**SMALL, catalogue_seed=1))
    assert (other.items_of != catalogue.items_of).any()


def play(env: Any, seed: int, steps: int) -> list[Any]:
    rng = np.random.default_rng(9)
    arrays = [env.reset(seed=seed)[0]["history"]]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(rng.integers(40, size=env.num_envs))
        arrays += [observation["history"], reward, terminated, truncated]
    return arrays


def test_same_seed_same_trajectory() -> None:
    runs = [play(NextItemVectorEnv(3, 10, **SMALL), seed, 25) for seed in (5, 5, 6)]
    for one, two in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(runs[0], runs[2], strict=True))


def test_vector_env_truncates_after_30_steps_and_never_terminates() -> None:
    arrays = play(gymnasium.make_vec(ID, num_envs=2), 0, 30)
    assert not np.any(arrays[3::4])
    assert np.all(arrays[-1]) and not np.any(arrays[4:-1:4])


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_final_observation_belongs_to_the_user_that_left(mode: str) -> None:
    env = NextItemVectorEnv(20, max_episode_steps=2, autoreset_mode=mode)
    action = np.zeros(20, dtype=np.int64)
    opening = env.reset(seed=0)[0]["history"][:, -1]
    env.step(action)
    observation, _, _, truncated, info = env.step(action)
    assert truncated.all()
    final = info["final_obs"] if mode == "SameStep" else observation
    np.testing.assert_array_equal(final["history"][:, -3], opening)
    np.testing.assert_array_equal(final["history"][:, -1], info["next_item"])
    begin = observation if mode == "SameStep" else env.step(action)[0]
    assert (begin["history"][:, :-1] == -1).all() and (begin["history"][:, -1] >= 0).all()


@pytest.mark.filterwarnings("ignore:.*A Box observation space:UserWarning")
def test_registered_and_checked() -> None:
    env = gymnasium.make(ID)
    check_env(env.unwrapped, skip_render_check=True)
    first, _ = env.reset(seed=0)
    assert first["history"].dtype == np.int32 and first in env.observation_space
    assert [env.step(0)[3] for _ in range(30)] == [False] * 29 + [True]


class ThreeClicks:
    """A user's own response: whoever wants topic 3 clicks everything."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def probability(self, item: Any, topic: Any) -> Any:
        return np.asarray((np.zeros_like(item) + topic) == 3, dtype=np.float32)


@pytest.mark.parametrize("response", [ThreeClicks, f"{__name__}:ThreeClicks"])
def test_the_response_can_be_replaced(response: Any) -> None:
    env = NextItemVectorEnv(200, response=response)
    env.reset(seed=0)
    reward = env.step(np.arange(200))[1]
    np.testing.assert_array_equal(reward, env.simulation.topic == 3)
    assert env.simulation.click_probabilities()[5, 0] == pytest.approx(env.simulation.chain.matrix[5, 3])
    NextItemEnv(response=response).reset(seed=0)


def test_propensities_are_those_of_the_draws() -> None:
    simulation = simulation_of(1)
    behaviour = Behaviour.mix(popularity(simulation), uniform_share=0.2, skew=1.0)
    assert behaviour.propensity.sum() == pytest.approx(1.0)
    assert behaviour.propensity.min() > 0.2 / 1000
    action = behaviour.act(np.zeros((300_000, 10)), np.random.default_rng(0), explore=True, env_steps=0)
    counts = np.bincount(action.action, minlength=1000)
    assert chisquare(counts, behaviour.propensity * 300_000).pvalue > 1e-3
    np.testing.assert_allclose(np.exp(action.log_prob), behaviour.propensity[action.action], rtol=1e-5)


def test_the_bound_is_what_the_myopic_oracle_gets() -> None:
    env = NextItemVectorEnv(4000)
    env.reset(seed=7)
    bound = best_return(env.simulation, 30)
    assert bound.shape == (4000,)
    played = play_first_episodes(BASELINES["myopic oracle"](env), VectorSteps(env), 7)
    returns = played.returns
    assert (played.lengths == 30).all()
    assert abs(returns.mean() - bound.mean()) < 4 * (returns - bound).std() / np.sqrt(4000)
    slow, row = 0.0, np.eye(20)[env.simulation.topic[0]]
    for _ in range(30):
        slow += row @ env.simulation.click_probabilities().max(axis=1)
        row = row @ env.simulation.chain.matrix
    assert best_return(env.simulation, 30)[0] == pytest.approx(slow)


def test_ladder_is_in_its_order() -> None:
    means = []
    for build in BASELINES.values():
        env = NextItemVectorEnv(300)
        means.append(play_first_episodes(build(env), VectorSteps(env), 5).returns.mean())
    assert means == sorted(means)
    shown = Popular(simulation_of(1), 3)
    seen = [
        int(shown.act(np.zeros((1, 10)), np.random.default_rng(0), explore=False, env_steps=0).action[0])
        for _ in range(4)
    ]
    assert seen[3] == seen[0] and len(set(seen)) == 3
    assert seen[0] == popularity(simulation_of(1)).argmax()


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"items": 0}, "items"),
        ({"items": 1001}, "multiple of topics"),
        ({"topics": 0}, "topics"),
        ({"history_length": 0}, "history_length"),
        ({"stay": 1.5}, "stay"),
        ({"concentration": 0.0}, "concentration"),
        ({"taste_exponent": -1.0}, "taste_exponent"),
    ],
)
def test_wrong_constants_are_refused(constants: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NextItemVectorEnv(2, **constants)


def test_every_constant_matters() -> None:
    changed = {"catalogue_seed": 3, "items": 2000, "topics": 10, "stay": 0.5, "concentration": 2.0}
    changed |= {"taste_exponent": 0.5, "history_length": 4}
    assert set(changed) == {field.name for field in dataclasses.fields(NextItemModel)}
    plain = simulation_of(50, seed=2)
    plain.step(np.zeros(50, dtype=np.int64))
    for name, value in changed.items():
        other = simulation_of(50, seed=2, **{name: value})
        other.step(np.zeros(50, dtype=np.int64))
        assert not np.array_equal(other.observe()["history"], plain.observe()["history"]), name


def test_the_favourite_of_a_topic_is_always_clicked() -> None:
    catalogue = draw_catalogue(NextItemModel())
    response = MatchResponse(catalogue)
    topic = np.arange(20)
    np.testing.assert_array_equal(response.probability(catalogue.items_of[:, 0], topic), np.ones(20, np.float32))
    assert not response.probability(catalogue.items_of[:, 0], (topic + 1) % 20).any()
    assert response.probability(catalogue.items_of[:, 0], topic).dtype == np.float32
