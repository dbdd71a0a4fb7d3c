"""What holds for every environment that headrace registers: a new one is covered by being registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from kit.log_users import random_users

import actors.envs  # noqa: F401  registers the ids
from actors.environments import EnvironmentConfig
from actors.ladder import Ladder

IDS = sorted(name for name in gymnasium.registry if name.startswith("headrace/"))
KWARGS: dict[str, dict[str, Any]] = {"headrace/LogUsers-v0": {"model": "users.npz"}}
WITHOUT_CHANCE = {"headrace/TopKToy-v0"}
USERS, LIMIT, STEPS = 4, 6, 20
MODES = (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)


@pytest.fixture(autouse=True)
def fitted_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_users().save(tmp_path / "users.npz")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def vector(
    env_id: str, mode: str = "SameStep", users: int = USERS, limit: int | None = LIMIT
) -> VectorEnv[Any, Any, Any]:
    kwargs = {**KWARGS.get(env_id, {}), "max_episode_steps": limit, "autoreset_mode": mode}
    return gymnasium.make_vec(env_id, users, vectorization_mode="vector_entry_point", **kwargs)


def play(env: VectorEnv[Any, Any, Any], seed: int, steps: int = STEPS) -> list[Any]:
    """First observations, then what each of `steps` random actions gave; stops where DISABLED would have to reset."""
    env.action_space.seed(seed)
    seen: list[Any] = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        seen.append(env.step(env.action_space.sample()))
        if env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and (seen[-1][2] | seen[-1][3]).any():
            break
    return seen


def leaves(value: Any) -> list[np.ndarray]:
    """The arrays of an observation, or of whole trajectories."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [np.asarray(value)]


def row_of(observation: Any, row: int) -> Any:
    if isinstance(observation, dict):
        return {name: values[row] for name, values in observation.items()}
    return observation[row]


def same(one: Any, other: Any) -> bool:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


@pytest.mark.filterwarnings("ignore:.*A Box observation space:UserWarning", "ignore:.*Box action space:UserWarning")
def test_one_user_passes_gymnasiums_checks(env_id: str) -> None:
    check_env(gymnasium.make(env_id, **KWARGS.get(env_id, {})).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("mode", [mode.value for mode in MODES])
def test_many_users_keep_to_their_spaces(env_id: str, mode: str) -> None:
    env = vector(env_id, mode)
    assert env.metadata["autoreset_mode"] is AutoresetMode(mode) and env.num_envs == USERS
    seen = play(env, 0)
    for observation in [seen[0], *(step[0] for step in seen[1:])]:
        assert observation in env.observation_space
        assert all(row_of(observation, row) in env.single_observation_space for row in range(USERS))
        assert not any(leaf.dtype == np.float64 for leaf in leaves(observation))
    for _, reward, terminated, truncated, info in seen[1:]:
        assert reward.dtype == np.float32 and np.isfinite(reward).all()
        assert terminated.dtype == truncated.dtype == np.bool_
        assert {reward.shape, terminated.shape, truncated.shape} == {(USERS,)}
        assert not (terminated & truncated).any()
        assert all(name in info for name in env.unwrapped.episode_metrics)  # type: ignore[attr-defined]


def test_the_seed_decides_everything(env_id: str) -> None:
    first, again, other = (play(vector(env_id), seed) for seed in (3, 3, 4))
    assert same(first, again)
    if env_id not in WITHOUT_CHANCE:
        assert not same(first, other)
        assert len({b"".join(leaf.tobytes() for leaf in leaves(row_of(first[0], row))) for row in range(USERS)}) > 1


def test_nobody_else_draws_from_the_global_generator(env_id: str) -> None:
    before = np.random.get_state()[1].tobytes()  # type: ignore[union-attr, index]  # noqa: NPY002
    play(vector(env_id), 0)
    assert np.random.get_state()[1].tobytes() == before  # type: ignore[union-attr, index]  # noqa: NPY002


def test_final_observations_belong_to_the_user_that_ended(env_id: str) -> None:
    same_step, next_step, disabled = (play(vector(env_id, mode.value), 5) for mode in MODES)
    last = len(disabled) - 1
    observation, _, terminated, truncated, _ = disabled[last]
    ended = terminated | truncated
    assert ended.any()
    assert same(next_step[last][:4], disabled[last][:4])
    assert same(same_step[last][1:4], disabled[last][1:4])
    assert same(same_step[last][4]["_final_obs"], ended)
    for row in np.flatnonzero(ended):
        assert same(row_of(same_step[last][4]["final_obs"], int(row)), row_of(observation, int(row)))
        if env_id not in WITHOUT_CHANCE:
            assert not same(row_of(same_step[last][0], int(row)), row_of(observation, int(row)))
    for row in np.flatnonzero(~ended):
        assert same(row_of(same_step[last][0], int(row)), row_of(observation, int(row)))


def test_the_step_after_an_end_only_begins_the_next_episode_in_next_step_mode(env_id: str) -> None:
    env = vector(env_id, "NextStep")
    env.action_space.seed(0)
    env.reset(seed=0)
    ended, began = np.zeros(USERS, dtype=np.bool_), 0
    for _ in range(STEPS):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert not (reward[ended].any() or terminated[ended].any() or truncated[ended].any())
        for name in env.unwrapped.episode_metrics:  # type: ignore[attr-defined]
            assert same(info[f"_{name}"], ~ended)
        if ended.any():
            now = env.unwrapped.simulation.observe()  # type: ignore[attr-defined]
            assert all(same(row_of(observation, row), row_of(now, row)) for row in np.flatnonzero(ended).tolist())
        began += int(ended.sum())
        ended = terminated | truncated
    assert began >= USERS


def test_what_is_no_action_is_refused(env_id: str) -> None:
    alone, many = gymnasium.make(env_id, **KWARGS.get(env_id, {})).unwrapped, vector(env_id)
    alone.reset(seed=0)
    many.reset(seed=0)
    good = many.action_space.sample()
    wrong = [good[:, None], good[1:], np.full_like(good, np.nan if good.dtype.kind == "f" else -1)]
    if good.dtype.kind != "f":
        wrong += [good.astype(np.float64), np.full_like(good, 10**6)]
    for actions in wrong:
        with pytest.raises(ValueError, match="action"):
            many.step(actions)
    for action in wrong[2:]:
        with pytest.raises(ValueError, match="action"):
            alone.step(action[0])
    many.step(good)


@pytest.mark.parametrize("kwargs", [{}, {"obs_mode": "ids"}, {"pomdp": True}], ids=["default", "ids", "pomdp"])
def test_a_reset_forgets_everything(env_id: str, kwargs: dict[str, Any]) -> None:
    given = {**KWARGS.get(env_id, {}), **kwargs}
    try:
        fresh, used = (
            gymnasium.make_vec(env_id, USERS, vectorization_mode="vector_entry_point", **given) for _ in range(2)
        )
    except (TypeError, ValueError):
        pytest.skip(f"it has no setting {kwargs}")
    play(used, 1)
    assert same(play(fresh, 2), play(used, 2))


def test_what_is_no_mask_of_resets_is_refused(env_id: str) -> None:
    env = vector(env_id)
    env.reset(seed=0)
    for mask in ([0, 2], np.ones(USERS), np.ones(USERS + 1, dtype=np.bool_)):
        with pytest.raises(ValueError, match=r"must be bool\[4\]"):
            env.reset(options={"reset_mask": mask})


def test_an_observation_given_out_does_not_change(env_id: str) -> None:
    env = vector(env_id)
    env.action_space.seed(0)
    given = [env.reset(seed=0)[0]]
    kept = [[leaf.copy() for leaf in leaves(given[0])]]
    for _ in range(STEPS):
        given.append(env.step(env.action_space.sample())[0])
        kept.append([leaf.copy() for leaf in leaves(given[-1])])
    assert all(same(one, two) for one, two in zip(given, kept, strict=True))


def test_a_limit_truncates_and_nothing_else_does(env_id: str) -> None:
    env = vector(env_id)
    length = np.zeros(USERS, dtype=int)
    for _, _, terminated, truncated, _ in play(env, 1)[1:]:
        length += 1
        assert not (truncated & (length < LIMIT)).any() and (length <= LIMIT).all()
        assert ((terminated | truncated) | (length < LIMIT)).all()
        length[terminated | truncated] = 0
    limited, endless = (play(vector(env_id, "Disabled", limit=limit), 1) for limit in (LIMIT, None))
    assert same(limited[-1][2], endless[len(limited) - 1][2])  # who is cut off has not left


def test_one_user_alone_lives_as_in_a_crowd_of_one(env_id: str) -> None:
    alone, crowd = gymnasium.make(env_id, **KWARGS.get(env_id, {})), vector(env_id, users=1)
    assert same(alone.reset(seed=2)[0], row_of(crowd.reset(seed=2)[0], 0))
    alone.action_space.seed(0)
    for _ in range(LIMIT - 1):
        action = alone.action_space.sample()
        observation, reward, terminated, _, _ = alone.step(action)
        together, rewards, ended, _, _ = crowd.step(np.asarray(action)[None])
        assert reward == rewards[0] and terminated == ended[0]
        if terminated:
            return
        assert same(observation, row_of(together, 0))


def test_a_slate_may_repeat_an_item(env_id: str) -> None:
    env = vector(env_id)
    if not isinstance(env.single_action_space, spaces.MultiDiscrete):
        pytest.skip("its actions are no slates")
    env.reset(seed=0)
    for item in (0, int(env.single_action_space.nvec.min()) - 1):
        observation, reward, *_ = env.step(np.full((USERS, *env.single_action_space.shape), item))
        assert observation in env.observation_space and np.isfinite(reward).all()


def test_every_rung_of_its_ladder_can_be_measured(env_id: str) -> None:
    config = EnvironmentConfig(id=env_id, kwargs=KWARGS.get(env_id, {}), max_episode_steps=LIMIT)
    with Ladder(config, 16, seed=7) as rungs:
        assert len(rungs.baselines) >= 3
        rows = [rungs.baseline(name) for name in rungs.baselines]
        bounds = [rungs.bound(name) for name in rungs.bounds]
    for bound in bounds:
        assert np.isfinite(bound.mean)
        assert all(row.mean <= bound.mean + 5.0 * (row.sem + bound.sem) + 1e-6 for row in rows)
