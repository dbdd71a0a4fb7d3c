"""ProtoAction's rules against a one-user loop, its determinism, its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

import actors.envs  # noqa: F401  registers the ids
from actors.envs.proto_action import ProtoAction, ProtoActionEnv, ProtoActionModel, ProtoActionVectorEnv
from actors.envs.proto_action.catalogue import draw_catalogue
from actors.envs.proto_action.search import ExactIndex, best_ids
from replay_server.errors import ConfigError

ID = "headrace/ProtoAction-v0"
SMALL = {"items": 300, "dim": 8, "clusters": 5, "history_length": 4}


def simulation_of(num_users: int, seed: int = 0, **constants: Any) -> ProtoAction:
    simulation = ProtoAction(ProtoActionModel(**{**SMALL, **constants}), num_users)
    simulation.generator = np.random.default_rng(seed)
    simulation.reset()
    return simulation


def mirror_of(simulation: ProtoAction) -> np.random.Generator:
    mirror = np.random.default_rng(0)
    mirror.bit_generator.state = simulation.generator.bit_generator.state
    return mirror


@pytest.mark.parametrize("drift", [0.0, 0.2])
@pytest.mark.parametrize("actions", ["items", "proto"])
def test_step_follows_the_definition_user_by_user(actions: str, drift: float) -> None:
    users = 6
    simulation = simulation_of(users, seed=3, actions=actions, drift=drift, lam=0.8)
    mirror, rng = mirror_of(simulation), np.random.default_rng(1)
    items = simulation.catalogue.items.astype(float)
    taste, satiation = simulation.state.taste.astype(float), np.zeros((users, 8))
    shown: list[list[NDArray[Any]]] = [[] for _ in range(users)]
    for _ in range(30):
        action = rng.integers(300, size=users) if actions == "items" else rng.uniform(-1, 1, (users, 8))
        outcome = simulation.step(action)
        noise = mirror.standard_normal(users, dtype=np.float32)
        walk = mirror.standard_normal((users, 8), dtype=np.float32) if drift else np.zeros((users, 8))
        for user in range(users):
            item = int(action[user]) if actions == "items" else int(np.argmax(items @ action[user]))
            mean = 5 * (taste[user] - 0.8 * satiation[user]) @ items[item]
            reward = min(max(mean + 0.5 * noise[user], -5.0), 5.0)
            assert outcome.reward[user] == pytest.approx(reward, abs=1e-4)
            assert outcome.info["item"][user] == item
            satiation[user] = 0.7 * satiation[user] + 0.3 * items[item]
            stepped = taste[user] + drift / np.sqrt(8) * walk[user]
            taste[user] = stepped / np.linalg.norm(stepped)
            shown[user].append(np.append(items[item], reward))
        assert not outcome.terminated.any() and not outcome.truncated.any()
    seen = simulation.observe()
    assert seen["history"].dtype == seen["user"].dtype == np.float32
    for user in range(users):
        np.testing.assert_allclose(seen["history"][user], shown[user][-4:], atol=1e-4)
        np.testing.assert_allclose(seen["user"][user], taste[user], atol=1e-5)


def test_rewards_are_cut_to_the_bound() -> None:
    simulation = simulation_of(2000, reward_noise=3.0)
    best = ExactIndex(simulation.catalogue.items).search(simulation.state.taste)
    reward = simulation.step(simulation.catalogue.items[best]).reward
    assert reward.max() == 5.0 and (reward == 5.0).mean() > 0.1
    worst = ExactIndex(simulation.catalogue.items).search(-simulation.state.taste)
    assert simulation.step(simulation.catalogue.items[worst]).reward.min() == -5.0


def test_ids_name_the_items_that_embeddings_show() -> None:
    by_id = simulation_of(20, obs_mode="ids", actions="items")
    by_vector = simulation_of(20, actions="items")
    rng = np.random.default_rng(0)
    for step in range(7):
        action = rng.integers(300, size=20)
        by_id.step(action)
        by_vector.step(action)
        if step == 2:
            by_id.reset(np.arange(5))
            by_vector.reset(np.arange(5))
        ids, vectors = by_id.observe(), by_vector.observe()
        assert ids["history"].dtype == np.int32
        there = ids["history"] >= 0
        np.testing.assert_array_equal(vectors["history"][there][:, :-1], by_id.catalogue.items[ids["history"][there]])
        np.testing.assert_array_equal(vectors["history"][..., -1], ids["rewards"])
        assert not vectors["history"][~there].any()
    assert (there.sum(axis=1) == 4).all() and (by_id.age == [4] * 5 + [7] * 15).all()


def test_a_hidden_user_is_not_shown() -> None:
    assert set(simulation_of(3, show_user=False).observe()) == {"history"}
    assert set(simulation_of(3, show_user=False, obs_mode="ids").observe()) == {"history", "rewards"}


@pytest.mark.parametrize(("queries", "items"), [(1, 1), (3, 1999), (256, 2000), (300, 2001), (513, 4500)])
def test_blocked_search_finds_what_one_product_finds(queries: int, items: int) -> None:
    rng = np.random.default_rng(queries)
    table = rng.integers(-4, 5, size=(items, 3)).astype(np.float32)  # small whole numbers: exact, and full of ties
    asked = rng.integers(-4, 5, size=(queries, 3)).astype(np.float32)
    np.testing.assert_array_equal(ExactIndex(table).search(asked), (asked @ table.T).argmax(axis=1))


def test_the_best_few_are_the_best_few() -> None:
    rng = np.random.default_rng(0)
    table, asked = rng.normal(size=(500, 6)).astype(np.float32), rng.normal(size=(300, 6)).astype(np.float32)
    expected = np.sort(np.argsort(-(asked @ table.T), axis=1)[:, :7], axis=1)
    np.testing.assert_array_equal(np.sort(best_ids(asked, table, 7), axis=1), expected)
    np.testing.assert_array_equal(best_ids(asked[:2], table, 900), [np.arange(500)] * 2)


def test_only_the_direction_of_a_proto_action_matters() -> None:
    one, other = simulation_of(50), simulation_of(50)
    proto = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    np.testing.assert_array_equal(one.step(proto).info["item"], other.step(proto * 0.01).info["item"])


def test_items_and_tastes_gather_around_the_same_directions() -> None:
    simulation = simulation_of(4000, items=4000, dim=32, clusters=50)
    catalogue = simulation.catalogue
    for vectors in (catalogue.items, simulation.state.taste):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
        nearest = (vectors @ catalogue.centres.T).max(axis=1)
        assert nearest.mean() == pytest.approx(1 / np.sqrt(1 + 0.6**2), abs=0.02)
        counts = np.bincount((vectors @ catalogue.centres.T).argmax(axis=1), minlength=50)
        assert (counts > 30).all() and (counts < 160).all()


def test_a_taste_drifts_by_the_stated_length_and_stays_on_the_sphere() -> None:
    simulation = simulation_of(3000, drift=0.1)
    before = simulation.state.taste.copy()
    simulation.step(before)
    after = simulation.state.taste
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1.0, rtol=1e-5)
    assert np.sqrt(((after - before) ** 2).sum(axis=1).mean()) == pytest.approx(0.1 * np.sqrt(7 / 8), rel=0.03)
    still = simulation_of(10)
    first = still.state.taste.copy()
    still.step(first)
    np.testing.assert_array_equal(still.state.taste, first)


def test_items_are_shared_read_only_and_users_are_not() -> None:
    first, second = simulation_of(2, seed=1), simulation_of(2, seed=2)
    assert first.catalogue.items is second.catalogue.items
    assert (first.state.taste != second.state.taste).all()
    with pytest.raises(ValueError, match="read-only"):
        first.catalogue.items[0] = 0.0
    assert (simulation_of(2, catalogue_seed=1).catalogue.items != first.catalogue.items).any()


def test_a_large_catalogue_is_drawn_in_blocks() -> None:
    items = draw_catalogue(ProtoActionModel(items=70_000, dim=4)).items
    assert items.shape == (70_000, 4) and items.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1.0, rtol=1e-5)
    assert len(np.unique(items[:, 0])) > 60_000


def play(env: Any, seed: int, steps: int) -> list[NDArray[Any]]:
    rng = np.random.default_rng(9)
    arrays = list(env.reset(seed=seed)[0].values())
    for _ in range(steps):
        observation, *rest = env.step(rng.uniform(-1, 1, (env.num_envs, 8)))
        arrays += [*observation.values(), *rest[:3]]
    return arrays


@pytest.mark.parametrize("constants", [{}, {"obs_mode": "ids"}, {"show_user": False}, {"drift": 0.1}])
def test_same_seed_same_trajectory(constants: dict[str, Any]) -> None:
    runs = [play(ProtoActionVectorEnv(3, 10, **SMALL, **constants), seed, 25) for seed in (5, 5, 6)]
    for one, two in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(runs[0], runs[2], strict=True))


def test_one_user_and_many_users_are_the_same_users() -> None:
    one, many = ProtoActionEnv(**SMALL), ProtoActionVectorEnv(1, **SMALL)
    alone, _ = one.reset(seed=3)
    together, _ = many.reset(seed=3)
    for _ in range(5):
        for name in alone:
            np.testing.assert_array_equal(alone[name], together[name][0])
        alone, reward, *_ = one.step(np.ones(8, dtype=np.float32))
        together, rewards, *_ = many.step(np.ones((1, 8), dtype=np.float32))
        assert reward == rewards[0]


def test_final_observations_belong_to_the_user_that_left() -> None:
    env = ProtoActionVectorEnv(50, max_episode_steps=2, **SMALL)
    first, _ = env.reset(seed=0)
    env.step(first["user"])
    observation, reward, terminated, truncated, info = env.step(first["user"])
    assert truncated.all() and not terminated.any()
    np.testing.assert_array_equal(info["final_obs"]["user"], first["user"])
    np.testing.assert_array_equal(info["final_obs"]["history"][:, -1, -1], reward)
    assert (observation["user"] != first["user"]).any(axis=1).all()
    assert not observation["history"].any()


def test_next_step_mode_resets_one_step_later() -> None:
    env = ProtoActionVectorEnv(50, max_episode_steps=2, autoreset_mode="NextStep", **SMALL)
    first, _ = env.reset(seed=0)
    env.step(first["user"])
    final, _, _, truncated, _ = env.step(first["user"])
    assert truncated.all()
    np.testing.assert_array_equal(final["user"], first["user"])
    begin, reward, _, truncated, _ = env.step(first["user"])
    assert not truncated.any() and not reward.any() and not begin["history"].any()
    assert (begin["user"] != first["user"]).any()
    assert env.step(first["user"])[1].any()


@pytest.mark.filterwarnings("ignore:.*A Box observation space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*not symmetric and normalized:UserWarning")
@pytest.mark.parametrize("constants", [{}, {"actions": "items"}, {"obs_mode": "ids"}, {"show_user": False}])
def test_registered_and_checked(constants: dict[str, Any]) -> None:
    env = gymnasium.make(ID, **SMALL, **constants)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    truncated = [env.step(env.action_space.sample())[3] for _ in range(20)]
    assert truncated == [False] * 19 + [True]


def test_the_spaces_are_the_stated_ones() -> None:
    env = gymnasium.make(ID)
    assert env.observation_space["history"].shape == (10, 33)  # type: ignore[index]
    assert env.observation_space["user"].shape == (32,)  # type: ignore[index]
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (32,), np.float32)
    assert gymnasium.make(ID, actions="items").action_space == gymnasium.spaces.Discrete(10_000)


class Likes:
    """A response in ten lines: 1 with probability sigmoid of the inner product, without satiation."""

    def __init__(self, model: ProtoActionModel) -> None:
        self.model = model

    def wish(self, taste: NDArray[np.float32], satiation: NDArray[np.float32]) -> NDArray[np.float32]:
        return taste

    def draw(self, affinity: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        return (rng.random(len(affinity)) < 1 / (1 + np.exp(-affinity))).astype(np.float32)


class TheFirst:
    """An index that knows one item."""

    def __init__(self, items: NDArray[np.float32]) -> None:
        self.items = items

    def search(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.zeros(len(queries), dtype=np.int64)


class Alike:
    """Users who are all the same."""

    def __init__(self, model: ProtoActionModel, catalogue: Any) -> None:
        self.taste = catalogue.items[7]

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return np.tile(self.taste, (count, 1))


def test_parts_are_replaced_by_name() -> None:
    module = __name__
    env = ProtoActionVectorEnv(
        40, users=f"{module}:Alike", response=f"{module}:Likes", index=f"{module}:TheFirst", **SMALL
    )
    seen, _ = env.reset(seed=0)
    np.testing.assert_array_equal(seen["user"], np.tile(env.item_embeddings[7], (40, 1)))
    _, reward, _, _, info = env.step(np.ones((40, 8)))
    assert set(reward) == {0.0, 1.0} and not info["item"].any()


def test_a_catalogue_from_a_file_is_mapped(tmp_path: Path) -> None:
    items = draw_catalogue(ProtoActionModel(items=64, dim=6, catalogue_seed=9)).items
    np.save(tmp_path / "items.npy", items)
    env = ProtoActionVectorEnv(4, catalogue=str(tmp_path / "items.npy"), history_length=3)
    np.testing.assert_array_equal(env.item_embeddings, items)
    assert isinstance(env.item_embeddings, np.memmap) and env.single_action_space.shape == (6,)
    assert env.reset(seed=0)[0]["history"].shape == (4, 3, 7)
    np.save(tmp_path / "wrong.npy", items.astype(float))
    with pytest.raises(ConfigError, match="float64"):
        ProtoActionVectorEnv(4, catalogue=str(tmp_path / "wrong.npy"))
    with pytest.raises(ConfigError, match="no.npy"):
        ProtoActionVectorEnv(4, catalogue=str(tmp_path / "no.npy"))


@pytest.mark.parametrize("ids", [[0, 300], [-1, 0]])
def test_an_item_that_is_not_there_is_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="0 .. 299"):
        simulation_of(2, actions="items").step(np.array(ids))


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"actions": "slates"}, "actions"),
        ({"obs_mode": "pixels"}, "obs_mode"),
        ({"items": 0}, "items"),
        ({"drift": -0.1}, "drift"),
        ({"reward_noise": float("nan")}, "reward_noise"),
        ({"reward_bound": 0.0}, "reward_bound"),
        ({"decay": 1.0}, "decay"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
    ],
)
def test_wrong_constants_are_refused(constants: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProtoActionVectorEnv(2, **{**SMALL, **constants})
