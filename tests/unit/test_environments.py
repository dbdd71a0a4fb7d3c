"""From config to vector environments: every way to name one, and every wrong one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from actors.environments import EnvironmentConfig, describe, make_vector_env
from actors.envs.movie_pick import MoviePickVectorEnv
from actors.layouts import observation_layout
from actors.vector_steps import VectorSteps
from replay_server.errors import ConfigError

USER_MODULE = """
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

class Single(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def __init__(self, level=0):
        self.level = level
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(2, self.level / 10, dtype=np.float32), {}
    def step(self, action):
        return np.zeros(2, dtype=np.float32), 1.0, False, False, {}

class Vector(gymnasium.vector.VectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    def __init__(self, num_envs, max_episode_steps=5):
        self.num_envs, self.limit = num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = Single.observation_space, Single.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

class Clash(Single):
    pass

class Shouting(gymnasium.Wrapper):
    pass

class NotAnEnv:
    pass

def refuses(env):
    raise ValueError("not this one")

class Needy(Single):
    def __init__(self):
        import a_package_nobody_has

gymnasium.register("Registered-v3", entry_point=Single)
gymnasium.register("Clash", entry_point=Vector)
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, which is not on the path."""
    (tmp_path / "users_own_envs.py").write_text(USER_MODULE)
    (tmp_path / "fails_to_import.py").write_text("1 / 0")
    (tmp_path / "lacks_a_package.py").write_text("import a_package_nobody_has.inside")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != ""])
    for name in ("users_own_envs", "fails_to_import", "lacks_a_package"):
        sys.modules.pop(name, None)
    for name in ("Registered-v3", "Clash"):
        gymnasium.registry.pop(name, None)
    return "users_own_envs"


def config(env_id: str, **fields: Any) -> EnvironmentConfig:
    return EnvironmentConfig(id=env_id, **fields)


def test_ids_with_a_vector_entry_point_vectorise_themselves() -> None:
    env = make_vector_env(config("headrace/MoviePick10-v0", kwargs={"catalogue_seed": 3}), 4)
    assert isinstance(env.unwrapped, MoviePickVectorEnv) and env.num_envs == 4
    assert env.unwrapped.simulation.model.catalogue_seed == 3
    assert type(make_vector_env(config("CartPole-v1", num_envs=3)).unwrapped).__name__ == "CartPoleVectorEnv"


def test_others_run_synchronously_with_same_step_autoreset() -> None:
    env = make_vector_env(config("Pendulum-v1", num_envs=2))
    assert isinstance(env, SyncVectorEnv) and env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_wrappers_are_applied_in_order_and_force_single_environments() -> None:
    wrappers = ["gymnasium.wrappers:TimeAwareObservation", "gymnasium.wrappers.FlattenObservation"]
    env = make_vector_env(config("CartPole-v1", wrappers=wrappers), 2)
    assert isinstance(env, SyncVectorEnv)
    assert env.single_observation_space.shape == (5,)
    assert type(env.envs[0]).__name__ == "FlattenObservation"
    assert type(env.envs[0].env).__name__ == "TimeAwareObservation"  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrappers", [[], ["gymnasium.wrappers:TimeAwareObservation"]])
def test_max_episode_steps(wrappers: list[str]) -> None:
    for env_id in ("headrace/MoviePick10-v0", "Pendulum-v1"):
        steps = VectorSteps(make_vector_env(config(env_id, max_episode_steps=3, wrappers=wrappers), 2))
        steps.reset(0)
        action = np.zeros(steps.env.action_space.shape or (2,))
        assert [bool(steps.step(action).truncated.all()) for _ in range(4)] == [False, False, True, False]


def test_classes_in_the_users_directory(user_module: str) -> None:
    env = make_vector_env(config(f"{user_module}:Single", kwargs={"level": 5}, max_episode_steps=2), 3)
    assert isinstance(env, SyncVectorEnv)
    steps = VectorSteps(env)
    np.testing.assert_allclose(steps.reset(0), 0.5)
    steps.step(np.zeros(3))
    assert steps.step(np.zeros(3)).truncated.all()
    vector = make_vector_env(config(f"{user_module}:Vector", max_episode_steps=9), 3)
    assert type(vector).__name__ == "Vector" and vector.num_envs == 3 and vector.limit == 9  # type: ignore[attr-defined]
    wrapped = make_vector_env(config(f"{user_module}:Single", wrappers=[f"{user_module}:Shouting"]), 1)
    assert type(wrapped.envs[0]).__name__ == "Shouting"  # type: ignore[attr-defined]


def test_gymnasiums_own_module_and_id(user_module: str) -> None:
    env = make_vector_env(config(f"{user_module}:Registered-v3", kwargs={"level": 2}), 2)
    np.testing.assert_allclose(VectorSteps(env).reset(0), 0.2)


def test_a_class_wins_over_an_id_of_the_same_name(user_module: str) -> None:
    env = make_vector_env(config(f"{user_module}:Clash"), 1)
    assert type(env.envs[0]).__name__ == "Clash"  # type: ignore[attr-defined]


WRONG = {
    "LunarLander-v2": "use LunarLander-v3",
    "LunarLander-v7": "use LunarLander-v3",
    "CartPol-v1": "nearest is CartPole-v1",
    "headrace/MoviePick-v0": "nearest is headrace/MoviePick10-v0",
    "Hopper-v2": "newest version is Hopper-v5",
    "no_such_module:Class": "no module no_such_module",
    "users_own_envs:Singl": "did you mean users_own_envs:Single",
    "users_own_envs:NotAnEnv": "neither a gymnasium.Env nor",
    "users_own_envs:Needy": "run pip install a_package_nobody_has",
    "lacks_a_package:Env": "run pip install a_package_nobody_has",
    "fails_to_import:Env": "ZeroDivisionError",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("env_id", "message"), WRONG.items(), ids=WRONG.keys())
def test_wrong_ids_get_one_line_with_the_remedy(env_id: str, message: str, user_module: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_vector_env(config(env_id), 1)
    assert "environment.id" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_optional_dependency_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(ConfigError, match=r"LunarLander-v3 needs .*pip install") as caught:
        make_vector_env(config("LunarLander-v3"), 1)
    assert "\n" not in str(caught.value)


WRONG_WRAPPERS = {
    "gymnasium.wrappers:FlattenObservatio": "did you mean FlattenObservation",
    "no_such_module:Wrapper": "no module no_such_module",
    "Flatten": "not of the form",
    "users_own_envs:refuses": "users_own_envs:refuses raised ValueError: not this one",
    "builtins:str": "returned a str",
}


@pytest.mark.parametrize(("path", "message"), WRONG_WRAPPERS.items(), ids=WRONG_WRAPPERS.keys())
def test_wrong_wrappers_are_named(path: str, message: str, user_module: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_vector_env(config("CartPole-v1", wrappers=[path]), 1)
    assert "environment.wrappers" in str(caught.value) and "\n" not in str(caught.value)


def test_wrappers_do_not_go_around_vector_environments(user_module: str) -> None:
    with pytest.raises(ConfigError, match=r"environment\.wrappers.*vector environment"):
        make_vector_env(config(f"{user_module}:Vector", wrappers=[f"{user_module}:Shouting"]), 1)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "users_own_envs:Single", "headrace/MoviePick10-v0"])
def test_unknown_kwargs_are_named(env_id: str, user_module: str) -> None:
    with pytest.raises(ConfigError, match=r"environment.kwargs .*no_such") as caught:
        make_vector_env(config(env_id, kwargs={"no_such": 1}), 1)
    assert "\n" not in str(caught.value)


def test_config_is_strict() -> None:
    with pytest.raises(msgspec.ValidationError, match="wraps"):
        msgspec.convert({"id": "CartPole-v1", "wraps": []}, EnvironmentConfig)
    for name in ("num_envs", "max_episode_steps"):
        with pytest.raises(msgspec.ValidationError, match=f">= 1 - at `\\$.{name}`"):
            msgspec.convert({"id": "CartPole-v1", name: 0}, EnvironmentConfig)


def test_describe() -> None:
    described = describe(config("headrace/MoviePick10-v0", num_envs=512))
    assert described.item_embeddings is not None and described.item_embeddings.shape == (10, 16)
    alone = describe(config("headrace/MoviePick10-v0", wrappers=["gymnasium.wrappers:FlattenObservation"]))
    np.testing.assert_array_equal(described.item_embeddings, alone.item_embeddings)
    assert describe(config("CartPole-v1")).item_embeddings is None
    assert observation_layout(described.observation_space) == ("float32", (100,))


def test_layouts() -> None:
    assert observation_layout(spaces.Box(0, 1, (2, 3), dtype=np.float64)) == ("float32", (2, 3))
    assert observation_layout(spaces.Box(0, 255, (84, 84, 4), dtype=np.uint8)) == ("uint8", (84, 84, 4))
    assert observation_layout(spaces.Discrete(5)) == ("int64", ())
    assert observation_layout(spaces.MultiDiscrete([3, 4], dtype=np.int32)) == ("int32", (2,))
    assert observation_layout(spaces.MultiBinary(4)) == ("int8", (4,))
    assert observation_layout(spaces.Dict({"a": spaces.Discrete(2)})) == ("float32", (1,))
    with pytest.raises(ConfigError, match="FlattenObservation"):
        observation_layout(spaces.Text(3))
