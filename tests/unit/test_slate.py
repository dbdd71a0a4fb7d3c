"""The slate tasks' rules against a one-user loop, their determinism, their spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy import stats

import actors.envs  # noqa: F401  registers the ids
from actors.envs.choice import MultinomialLogit, PositionBased, Proportional
from actors.envs.slate import InterestModel, SlateEnv, SlateModel, SlateSimulation, SlateVectorEnv, UserSampler
from actors.envs.slate.candidates import CandidateSource
from actors.envs.slate.catalogue import draw_catalogue, topic_qualities
from replay_server.errors import ConfigError

IDS = ("headrace/SlateMNL-v0", "headrace/SlateCascade-v0")


def simulation_of(num_users: int, seed: int = 0, choice_model: Any = "mnl", **constants: Any) -> SlateSimulation:
    simulation = SlateSimulation(SlateModel(**constants), num_users, choice_model=choice_model)
    simulation.generator = np.random.default_rng(seed)
    simulation.reset()
    return simulation


class SlowUser:
    """One user straight from the definition."""

    def __init__(self, simulation: SlateSimulation, row: int) -> None:
        self.catalogue, self.choice = simulation.catalogue, simulation.choice
        self.interests = [float(u) for u in simulation.interests[row]]
        self.minutes = 200.0
        self.watched: list[int] = []
        self.slates = 0

    def step(self, candidates: list[int], slate: list[int], draws: tuple[float, float]) -> tuple[float, list[int]]:
        self.slates += 1
        documents = [candidates[position] for position in slate]
        shown = [position not in slate[:place] for place, position in enumerate(slate)]
        scores = [self.interests[self.catalogue.topic[document]] for document in documents]
        shares = self.choice.probabilities(np.float32([scores]), np.array([shown]))[0]
        below, response = 0.0, [0] * len(slate)
        for place, document in enumerate(documents):
            if below <= draws[0] < below + shares[place]:
                response[place] = 1
                return self.watch(document, draws[1]), response
            below += float(shares[place])
        self.minutes -= 0.5
        return 0.0, response

    def watch(self, document: int, draw: float) -> float:
        topic, quality = self.catalogue.topic[document], float(self.catalogue.quality[document])
        u = self.interests[topic]
        change = (-0.3 * abs(u) + 0.3) * (1.0 - u)
        self.interests[topic] = min(1.0, max(-1.0, u + change if draw < (u + 1.0) / 2.0 else u - change))
        self.watched.append(document)
        minutes = min(self.minutes, 4.0)
        self.minutes += 0.9 / 3.4 * minutes * quality - minutes
        return minutes


@pytest.mark.parametrize("choice_model", ["mnl", "proportional", "exponential_cascade", "position_based"])
def test_step_follows_the_definition_user_by_user(choice_model: str) -> None:
    users = 6
    simulation = simulation_of(users, 3, choice_model, pomdp=True)
    mirror = np.random.default_rng(0)
    mirror.bit_generator.state = simulation.generator.bit_generator.state
    slow = [SlowUser(simulation, row) for row in range(users)]
    rng, ended = np.random.default_rng(1), np.zeros(users, dtype=np.bool_)
    for _ in range(150):
        slate, candidates = rng.integers(20, size=(users, 3)), simulation.candidates.copy()
        draws = mirror.random((2, users), dtype=np.float32)
        offered = mirror.random((users, 20), dtype=np.float32)
        outcome = simulation.step(slate)
        for row in np.flatnonzero(~ended):
            reward, response = slow[row].step(
                candidates[row].tolist(), slate[row].tolist(), (float(draws[0, row]), float(draws[1, row]))
            )
            assert outcome.reward[row] == pytest.approx(reward, abs=1e-3)
            assert simulation.response[row].tolist() == response
            assert simulation.minutes[row] == pytest.approx(slow[row].minutes, abs=1e-3)
            np.testing.assert_allclose(simulation.interests[row], slow[row].interests, atol=1e-4)
            assert outcome.terminated[row] == (slow[row].minutes <= 0.0)
            assert outcome.info["watched_share"][row] == pytest.approx(len(slow[row].watched) / slow[row].slates)
            qualities = [slow[row].catalogue.quality[document] for document in slow[row].watched]
            assert not qualities or outcome.info["watched_quality"][row] == pytest.approx(np.mean(qualities), abs=1e-4)
            last = ([-1] * 10 + slow[row].watched)[-10:]
            assert simulation.history[row].tolist() == last
        first = 500 * np.arange(20)
        np.testing.assert_array_equal(simulation.candidates, first + (np.float32(500) * offered).astype(int))
        ended |= outcome.terminated
        assert not outcome.truncated.any()
    assert ended.any()


@pytest.mark.parametrize("choice_model", [MultinomialLogit(), Proportional(), PositionBased()])
def test_what_is_watched_has_the_models_probabilities(choice_model: Any) -> None:
    users = 40_000
    simulation = simulation_of(users, 5, choice_model)
    simulation.interests[:] = simulation.interests[0]
    simulation.candidates[:] = simulation.candidates[0]
    slate = np.tile([3, 7, 3], (users, 1))
    scores = simulation.interests[0, simulation.catalogue.topic[simulation.candidates[0, slate[0]]]]
    exact = choice_model.probabilities(scores[None], np.array([[True, True, False]]))[0].astype(float)
    simulation.step(slate)
    seen = simulation.response.sum(axis=0)
    assert seen[2] == 0  # a repeated item keeps its place with zero mass
    counts = np.array([seen[0], seen[1], users - seen.sum()])
    assert stats.chisquare(counts, exact[[0, 1, 3]] / exact[[0, 1, 3]].sum() * users).pvalue > 0.01


def test_settings_reach_the_choice_model_that_they_name() -> None:
    env = SlateVectorEnv(2, choice_model="mnl", choice={"beta": 1.0, "none_logit": 0.0})
    assert env.simulation.choice == MultinomialLogit(beta=1.0, none_logit=0.0)
    with pytest.raises(ConfigError, match="choice_model mnl: .*gamma"):
        SlateEnv(choice={"gamma": 1.0})


def test_interests_drift_towards_what_was_watched_and_liked() -> None:
    model = InterestModel(0.3)
    for start, sign in ((0.5, 1.0), (-0.5, -1.0)):
        uniforms = np.random.default_rng(0).random(50_000, dtype=np.float32)
        moved = model.moved(np.full(50_000, start, np.float32), uniforms)
        size = 0.3 * 0.5 * (1 - start)
        np.testing.assert_allclose(np.unique(moved), [start - size, start + size], rtol=1e-6)
        up = (moved > start).mean()
        assert up == pytest.approx((1 + start) / 2, abs=0.01)
        assert sign * (moved.mean() - start) > 0
    simulation = simulation_of(2000, 1)
    simulation.interests *= np.float32(0.9)  # at the ends interests stay where they are
    before = simulation.interests.copy()
    candidates = simulation.candidates
    slate = np.tile([0, 1, 2], (2000, 1))
    simulation.step(slate)
    changed = np.argwhere(simulation.interests != before)
    watched = np.argwhere(simulation.response)
    assert [row for row, _ in changed.tolist()] == watched[:, 0].tolist()  # one interest of each who watched
    topics = simulation.catalogue.topic[candidates[watched[:, 0], watched[:, 1]]]
    np.testing.assert_array_equal(changed[:, 1], topics)


def test_documents_and_users_have_the_stated_distribution() -> None:
    model = SlateModel()
    catalogue, means = draw_catalogue(model), topic_qualities(model)
    assert len(means) == 20 and means[0] == -3 and means[13] == means[14] == 0 and means[19] == 3
    assert stats.chisquare(np.bincount(catalogue.topic, minlength=20)).pvalue > 0.01
    assert (catalogue.quality - means[catalogue.topic]).std() == pytest.approx(0.1, rel=0.05)
    np.testing.assert_array_equal(catalogue.embeddings[:, :20].argmax(axis=1), catalogue.topic)
    np.testing.assert_array_equal(catalogue.embeddings[:, 20], catalogue.quality)
    interests = UserSampler(20).draw(5000, np.random.default_rng(0))
    assert stats.kstest(interests.ravel(), stats.uniform(-1, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize(("documents", "candidates"), [(10_000, 20), (23, 7), (5, 5), (1_000_003, 100)])
def test_candidates_are_different_documents_each_as_often(documents: int, candidates: int) -> None:
    drawn = CandidateSource(documents, candidates).draw(2000, np.random.default_rng(0))
    assert drawn.dtype == np.int32 and drawn.min() >= 0 and drawn.max() < documents
    assert all(len(set(row)) == candidates for row in drawn.tolist())
    if documents == 23:
        expected = np.concatenate([np.full(width, 2000 / width) for width in (3, 3, 3, 4, 3, 3, 4)])
        assert stats.chisquare(np.bincount(drawn.ravel()), expected).pvalue > 0.001


def test_scores_show_the_largest_first() -> None:
    by_scores, by_slate = simulation_of(50, 2, action_mode="scores"), simulation_of(50, 2)
    scores = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    slate = np.array([sorted(range(20), key=lambda position, row=row: -row[position])[:3] for row in scores])  # type: ignore[misc]
    one, two = by_scores.step(scores), by_slate.step(slate)
    np.testing.assert_array_equal(one.reward, two.reward)
    np.testing.assert_array_equal(by_scores.response, by_slate.response)


def test_observations_are_what_they_say() -> None:
    simulation = simulation_of(30, 4)
    for _ in range(5):
        simulation.step(np.tile([0, 1, 2], (30, 1)))
    seen = simulation.observe()
    np.testing.assert_array_equal(seen["observation"][:, 0], simulation.response.any(axis=1))
    np.testing.assert_array_equal(seen["observation"][:, 1:21], simulation.interests)
    np.testing.assert_allclose(seen["observation"][:, 21], simulation.minutes / 200)
    np.testing.assert_array_equal(seen["candidates"], simulation.catalogue.embeddings[simulation.candidates])
    hidden = simulation_of(30, 4, pomdp=True, show_budget=False, show_quality=False)
    for _ in range(2):
        hidden.step(np.tile([0, 1, 2], (30, 1)))
    seen = hidden.observe()
    assert seen["observation"].shape == (30, 1) and seen["candidates"].shape == (30, 20, 20)
    assert seen["history"].shape == (30, 10, 20) and not seen["history"][:, :8].any()
    rows = np.flatnonzero(hidden.history[:, -1] >= 0)
    topics = hidden.catalogue.topic[hidden.history[rows, -1]]
    np.testing.assert_array_equal(seen["history"][rows, -1].argmax(axis=1), topics)


VARIANTS: list[dict[str, Any]] = [
    {}, {"obs_mode": "ids"}, {"pomdp": True}, {"obs_mode": "ids", "pomdp": True}, {"action_mode": "scores"},
    {"candidates": 100, "slots": 10}, {"show_budget": False, "show_quality": False},
    {"choice_model": "proportional_cascade"},
]  # fmt: skip


@pytest.mark.parametrize("constants", VARIANTS, ids=str)
@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
def test_every_variant_passes_gymnasiums_checks(constants: dict[str, Any]) -> None:
    check_env(SlateEnv(**constants), skip_render_check=True)
    env = SlateVectorEnv(4, **constants)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(3):
        assert env.observation_space.contains(observation)
        observation, *_ = env.step(env.action_space.sample())


@pytest.mark.parametrize("name", IDS)
def test_registered(name: str) -> None:
    env = gymnasium.make(name)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec is not None and env.spec.max_episode_steps == 600
    vector = gymnasium.make_vec(name, num_envs=3, vectorization_mode="vector_entry_point")
    choice = "MultinomialLogit" if "MNL" in name else "ExponentialCascade"
    assert type(vector.unwrapped.simulation.choice).__name__ == choice  # type: ignore[attr-defined]


def play(env: Any, seed: int, steps: int) -> list[np.ndarray]:
    rng, arrays = np.random.default_rng(9), []
    observation, _ = env.reset(seed=seed)
    for _ in range(steps):
        arrays += list(observation.values())
        observation, *rest, _ = env.step(rng.integers(20, size=(env.num_envs, 3)))
        arrays += rest
    return arrays


def test_same_seed_same_trajectory() -> None:
    runs = [play(SlateVectorEnv(3, pomdp=True), seed, 120) for seed in (5, 5, 6)]
    for one, two in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(runs[0], runs[2], strict=True))


def test_time_that_is_spent_terminates_and_the_limit_truncates() -> None:
    env = SlateVectorEnv(64)
    env.reset(seed=0)
    spent = np.zeros(64)
    for _ in range(600):
        before, interests = env.simulation.minutes.copy(), env.simulation.interests.copy()
        _, reward, terminated, truncated, info = env.step(np.tile([0, 1, 2], (64, 1)))
        assert not truncated.any()
        assert (reward <= np.maximum(before, 0)).all() and (reward[reward < before] <= 4).all()
        spent += reward
        if terminated.any():
            final = info["final_obs"]["observation"][terminated]
            assert (final[:, 21] == 0.0).all()
            kept = (final[:, 1:21] == interests[terminated]).sum(axis=1)
            assert (kept >= 19).all()  # the user's that left, but for what he watched last
            np.testing.assert_array_equal(env.simulation.minutes[terminated], 200.0)
            assert (env.simulation.history[terminated] == -1).all()
            break
    short = SlateVectorEnv(4, max_episode_steps=7)
    short.reset(seed=0)
    ends = [short.step(np.tile([0, 1, 2], (4, 1)))[2:4] for _ in range(7)]
    assert not any(terminated.any() for terminated, _ in ends)
    assert [bool(truncated.all()) for _, truncated in ends] == [False] * 6 + [True]


class Always:
    """A user who watches whatever stands first."""

    def probabilities(self, scores: Any, shown: Any) -> Any:
        outcomes = np.zeros((len(scores), scores.shape[1] + 1), dtype=np.float32)
        outcomes[:, 0] = 1.0
        return outcomes


def test_parts_of_ones_own_are_used() -> None:
    model = SlateModel()
    catalogue = draw_catalogue(model)
    catalogue.quality[:] = 3.0

    class Bored(UserSampler):
        def draw(self, count: int, generator: np.random.Generator) -> Any:
            return np.full((count, self.topics), -1.0, dtype=np.float32)

    simulation = SlateSimulation(
        model, 5, choice_model=Always(), catalogue=catalogue, users=Bored(20), interest_model=InterestModel(0.0)
    )
    simulation.reset()
    outcome = simulation.step(np.tile([4, 5, 6], (5, 1)))
    assert (outcome.reward == 4.0).all() and (outcome.info["watched_quality"] == 3.0).all()
    assert (simulation.interests == -1.0).all()
    np.testing.assert_allclose(simulation.minutes, 200 - 4 * (1 - 0.9 * 3 / 3.4), rtol=1e-5)
    assert isinstance(SlateVectorEnv(2, choice_model=Always()).simulation.choice, Always)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"obs_mode": "pixels"}, "obs_mode"),
        ({"action_mode": "words"}, "action_mode"),
        ({"slots": 0}, "slots is 0"),
        ({"slots": 21}, "slots 21, candidates 20"),
        ({"documents": 19}, "documents 19"),
        ({"length": 0.0}, "length"),
        ({"choice_model": "softmax"}, "choice_model"),
    ],
)
def test_wrong_constants_are_refused(constants: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, ConfigError), match=message):
        SlateVectorEnv(2, **constants)
