"""What an agent sees of NewsSession, and what its baselines do, against slow ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from actors.envs.news_session import NewsSession, NewsSessionModel, NewsSessionVectorEnv
from actors.envs.news_session.articles import article_features
from actors.envs.news_session.baselines import BASELINES, LinUCB, Uniform, best
from actors.vector_steps import VectorSteps

WINDOWS = (1.0, 6.0, 24.0, 168.0, 8760.0)


def env_of(num_envs: int, **constants: Any) -> NewsSessionVectorEnv:
    return NewsSessionVectorEnv(num_envs, **{"articles": 500, **constants})


def test_blocks_of_features_follow_from_single_clicks() -> None:
    env, users, rng = env_of(4, show_user=False), 4, np.random.default_rng(2)
    env.reset(seed=0)
    news: NewsSession = env.simulation
    clock = np.zeros(users)
    clicks: list[list[tuple[float, np.ndarray]]] = [[] for _ in range(users)]
    requests, hours = np.zeros(users), np.zeros(users)
    for _ in range(25):
        pool, action = news.pool, rng.integers(40, size=(users, 5))
        seen, _, _, _, info = env.step(action)
        for user in range(users):
            for article, clicked in zip(action[user], news.response[user], strict=True):
                if clicked:
                    clicks[user].append((clock[user], pool.properties[article]))
        hours = info["dt_hours"]
        clock += hours
        requests = np.where(hours == np.float32(1 / 60), requests + 1, 0)
    assert min(map(len, clicks)) >= 2
    articles = article_features(news.model, news.pool)
    for user in range(users):
        profiles, block = [], []
        for window in WINDOWS:
            weights = [math.exp(-(clock[user] - then) / window) for then, _ in clicks[user]]
            total = sum(w * p for w, (_, p) in zip(weights, clicks[user], strict=True))
            profiles.append(total[:19] / (1 + sum(weights)))
            block += [*profiles[-1], math.log1p(sum(weights))]
        np.testing.assert_allclose(seen["observation"][user, :100], block, rtol=1e-3, atol=1e-4)
        day, week = 2 * math.pi * clock[user] / 24, 2 * math.pi * clock[user] / 168
        context = [math.sin(day), math.cos(day), math.sin(week), math.cos(week), 0.2 * math.log1p(hours[user])]
        context += [min(requests[user], 10) / 10, news.activeness.values[user], news.response[user].mean()]
        np.testing.assert_allclose(seen["observation"][user, 100:], context, atol=1e-3)
        np.testing.assert_allclose(seen["candidates"][user, :, :40], articles)
        properties = news.pool.properties
        matches = [properties[:, :9] @ profiles[window][:9] for window in (4, 3, 2, 1, 0)]
        matches += [properties[:, 9:19] @ profiles[window][9:] for window in (4, 3, 2)]
        np.testing.assert_allclose(seen["candidates"][user, :, 40:48], np.transpose(matches), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(seen["candidates"][user, :, 48], news.pool.age / 10, rtol=1e-6)


def test_an_article_tells_its_properties_and_its_clicks() -> None:
    news = NewsSession(NewsSessionModel(), 1)
    features, pool = article_features(news.model, news.pool), news.pool
    np.testing.assert_array_equal(features[:, :35], pool.properties)
    for article in range(3):
        rate = 100 / (1 + math.exp(2.2 - 1.8 * pool.clickbait[article]))
        counts = [0.2 * math.log1p(rate * min(window, pool.age[article])) for window in WINDOWS]
        np.testing.assert_allclose(features[article, 35:], counts, rtol=1e-4)


def test_sizes_of_the_paper_fit() -> None:
    env = env_of(2, article_size=417, user_size=2065, user_news_size=25, context_size=32)
    seen, _ = env.reset(seed=0)
    assert seen["observation"].shape == (2, 2097) and seen["candidates"].shape == (2, 40, 444)
    hours = []
    for _ in range(30):
        seen = env.step(np.tile(np.arange(5), (2, 1)))[0]
        part = seen["observation"][:, 2073:]
        assert (part.sum(axis=1) == 1).all()
        np.testing.assert_array_equal(part.argmax(axis=1), np.floor(env.simulation.clock % 24))
        hours += part.argmax(axis=1).tolist()
    assert len(set(hours)) > 3


def test_without_user_news_only_articles_are_on_offer() -> None:
    assert env_of(2, user_news_size=0, show_user=False).reset(seed=0)[0]["candidates"].shape == (2, 40, 41)


def test_a_shown_user_is_the_taste_blurred() -> None:
    env = env_of(4000)
    seen, _ = env.reset(seed=0)
    taste = env.simulation.users.taste
    rest = seen["user"] - taste @ np.linalg.lstsq(taste, seen["user"], rcond=None)[0]
    assert rest.std() == pytest.approx(0.05, rel=0.05)
    np.testing.assert_allclose(np.linalg.norm(taste, axis=1), 1.0, rtol=1e-5)
    pull, fits = env.simulation.pool.pull, seen["candidates"][:, :, -2]
    np.testing.assert_allclose(fits, env.simulation.users.interests @ pull.T, rtol=1e-4, atol=1e-5)
    assert np.corrcoef(fits.ravel(), (taste @ pull.T).ravel())[0, 1] > 0.97
    interests = np.linalg.lstsq(np.linalg.lstsq(taste, seen["user"], rcond=None)[0].T, seen["user"].T, rcond=None)[0].T
    np.testing.assert_allclose(env.simulation.users.interests, interests, atol=0.02)  # no more than the part tells


def test_ids_name_user_history_and_offer() -> None:
    env, rng = env_of(6, obs_mode="ids", population=9), np.random.default_rng(0)
    env.reset(seed=0)
    news = env.simulation
    clicked: list[list[int]] = [[] for _ in range(6)]
    for _ in range(20):
        pool, action = news.pool, rng.integers(40, size=(6, 5))
        seen, *_ = env.step(action)
        for user in range(6):
            clicked[user] += pool.ids[action[user, news.response[user] == 1]].tolist()
            newest = clicked[user][-5:]
            assert seen["history"][user].tolist() == [-1] * (5 - len(newest)) + newest
        np.testing.assert_array_equal(seen["candidates"], np.tile(news.pool.ids, (6, 1)))
        np.testing.assert_array_equal(seen["user"], news.users.ids)
        np.testing.assert_array_equal(seen["response"], news.response)
    assert max(map(len, clicked)) > 5
    assert env.item_embeddings is not None and env.item_embeddings.shape == (500, 35)
    same = np.flatnonzero(news.users.ids == news.users.ids[0])
    np.testing.assert_array_equal(news.users.taste[same], news.users.taste[same][:1].repeat(len(same), 0))


def test_observations_are_new_arrays() -> None:
    for obs_mode in ("features", "ids"):
        env = env_of(3, obs_mode=obs_mode)
        first, _ = env.reset(seed=0)
        kept = {name: values.copy() for name, values in first.items()}
        for _ in range(5):
            env.step(np.tile(np.arange(5), (3, 1)))
        for name, values in first.items():
            np.testing.assert_array_equal(values, kept[name])


def test_random_lists_are_all_alike() -> None:
    news = NewsSession(NewsSessionModel(articles=500, pool=6, slots=2), 20_000)
    chosen = Uniform(news).act(np.zeros((20_000, 1)), np.random.default_rng(0), explore=False, env_steps=0)
    counts = np.zeros((6, 6))
    np.add.at(counts, tuple(chosen.action.T), 1)
    expected = 20_000 / 30
    assert counts.trace() == 0
    assert ((counts[~np.eye(6, dtype=bool)] - expected) ** 2 / expected).sum() < 58.3  # 29 degrees, 0.1 %
    np.testing.assert_allclose(chosen.log_prob, -math.log(30), rtol=1e-6)


def test_best_is_a_sort() -> None:
    scores = np.random.default_rng(0).random((50, 40))
    np.testing.assert_array_equal(best(scores, 5), np.argsort(-scores, axis=1)[:, :5])


def test_lin_ucb_equals_ridge_regression() -> None:
    env = env_of(3)
    steps, rng = VectorSteps(env), np.random.default_rng(0)
    observation = steps.reset(0)
    bandit = LinUCB(env.simulation)
    gram, moment = np.repeat(np.eye(36)[None], 3, axis=0), np.zeros((3, 36))
    for _ in range(12):
        articles = np.column_stack([env.simulation.pool.properties, np.ones(40)])
        action = bandit.act(observation, rng, explore=False, env_steps=0)
        for user in range(3):
            inverse = np.linalg.inv(gram[user])
            bonus = 0.5 * np.sqrt((articles @ inverse * articles).sum(axis=1))
            scores = articles @ inverse @ moment[user] + bonus
            np.testing.assert_allclose(np.sort(scores)[:-6:-1], scores[action.action[user]], rtol=1e-3, atol=1e-4)
        timestep = steps.step(action.action)
        bandit.observe(action, timestep)
        for user in range(3):
            shown = articles[action.action[user]]
            gram[user] += shown.T @ shown
            moment[user] += shown.T @ env.simulation.response[user]
        observation = timestep.observation


def test_the_ladder_has_the_published_order() -> None:
    clicks = {}
    for name, build in BASELINES.items():
        env = env_of(150, articles=10_000, obs_mode="ids", population=300)
        observation, _ = env.reset(seed=123)
        steps, policy, rng = VectorSteps(env), build(env), np.random.default_rng(0)
        total, running = np.zeros(150), np.ones(150, dtype=bool)
        observation = steps.reset(123)
        while running.any():
            action = policy.act(observation, rng, explore=False, env_steps=0)
            timestep = steps.step(action.action)
            if hasattr(policy, "observe"):
                policy.observe(action, timestep)
            ended = running & timestep.truncated
            if ended.any():
                total[ended] = timestep.metrics["clicks"][ended]
            running &= ~timestep.truncated
            observation = timestep.observation
        clicks[name] = total.mean()
    published = [39.2, 51.7, 54.5, 84.1, 122.7, 262.5, 284.6]
    for name, mean in zip(BASELINES, published, strict=True):
        assert clicks[name] == pytest.approx(mean, rel=0.15), name
