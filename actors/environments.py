"""From `environment:` in the config to a Gymnasium vector environment."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium
import msgspec
import numpy as np
from gymnasium import error as gymnasium_error
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from msgspec import Meta
from numpy.typing import NDArray

import actors.envs  # noqa: F401  registers the ids headrace/...-v0
from actors.imports import import_object, import_user_module
from replay_server.errors import ConfigError

_VERSION = re.compile(r"-v(\d+)$")


class EnvironmentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which environment, and how it is built."""

    id: Annotated[
        str,
        Meta(
            description="A Gymnasium id, headrace/...-v0, package.module:Class (a gymnasium.Env or vector.VectorEnv) "
            "or package.module:EnvId."
        ),
    ]
    num_envs: Annotated[int, Meta(ge=1, description="Environments of each actor.")] = 1
    kwargs: Annotated[dict[str, Any], Meta(description="Further arguments of the environment.")] = {}
    wrappers: Annotated[
        list[str],
        Meta(description="package.module:Class of wrappers, put around each environment in this order."),
    ] = []
    max_episode_steps: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Steps after which an episode is truncated; null keeps the environment's own limit."),
    ] = None
    normalise_observations: Annotated[
        bool, Meta(description="Standardise observations with running moments shared by all actors.")
    ] = False
    normalise_rewards: Annotated[
        bool, Meta(description="Divide rewards by the running standard deviation of the discounted return.")
    ] = False


Maker = Callable[[EnvironmentConfig, int], VectorEnv[Any, Any, Any]]


def make_vector_env(config: EnvironmentConfig, num_envs: int | None = None) -> VectorEnv[Any, Any, Any]:
    """Build the environment; one that vectorises itself is used as it is, any other runs in SAME_STEP autoreset.

    Args:
        config: which environment.
        num_envs: number of environments (default `config.num_envs`).

    Raises:
        ConfigError: unknown id, wrapper or argument, or a package is not installed; one line with the remedy.
    """
    count = config.num_envs if num_envs is None else num_envs
    maker = _maker_of(config)
    try:
        return maker(config, count)
    except ConfigError:
        raise
    except (gymnasium_error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ConfigError(_missing_package(config.id, error)) from error
    except TypeError as error:
        raise ConfigError(f"environment.kwargs {config.kwargs} do not fit {config.id}: {_line(error)}") from error
    except Exception as error:  # whatever a third-party constructor raises: still one line for the user
        newest = _newest_version(config.id)
        hint = f"; the newest version is {newest}" if newest not in (None, config.id) else ""
        text = f"environment.id {config.id}: {type(error).__name__}: {_line(error)}{hint}"
        raise ConfigError(text) from error


@dataclass(frozen=True)
class Description:
    """What one environment observes and takes, and what it knows of its items.

    Attributes:
        observation_space: of one environment.
        action_space: of one environment.
        item_embeddings: float32[N, d] of the items actions choose from, read-only; None where it has none.
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    item_embeddings: NDArray[np.float32] | None


def describe(config: EnvironmentConfig) -> Description:
    """Build one environment to look at it.

    Raises:
        ConfigError: like `make_vector_env`; or its `item_embeddings` are no finite [N, d].
    """
    env = make_vector_env(config, 1)
    try:
        return Description(env.single_observation_space, env.single_action_space, _item_embeddings(env, config.id))
    finally:
        env.close()


def _item_embeddings(env: VectorEnv[Any, Any, Any], name: str) -> NDArray[np.float32] | None:
    """The attribute `item_embeddings` of the environment itself, under all wrappers."""
    inner: Any = env.unwrapped
    if isinstance(inner, SyncVectorEnv):
        inner = inner.envs[0].unwrapped
    found = getattr(inner, "item_embeddings", None)
    if found is None:
        return None
    table = np.array(found, dtype=np.float32)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ConfigError(
            f"environment.id: item_embeddings of {name} have shape {table.shape}; give finite numbers [items, size]"
        )
    table.flags.writeable = False
    return table


def _maker_of(config: EnvironmentConfig) -> Maker:
    if ":" not in config.id:
        _check_registered(config.id, config.id)
        return _from_registry
    module_name, _, name = config.id.partition(":")
    module = import_user_module(module_name, "environment.id")
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, gymnasium.vector.VectorEnv):
        return _from_vector_class
    if isinstance(found, type) and issubclass(found, gymnasium.Env):
        return _from_single_class
    if name in gymnasium.registry:
        return _from_registry
    if found is not None:
        raise ConfigError(
            f"environment.id {config.id}: {name} is neither a gymnasium.Env nor a gymnasium.vector.VectorEnv class"
        )
    classes = [n for n, v in vars(module).items() if isinstance(v, type) and not n.startswith("_")]
    nearest = difflib.get_close_matches(name, [*classes, *gymnasium.registry], n=1, cutoff=0.5)
    hint = f"; did you mean {module_name}:{nearest[0]}?" if nearest else ""
    raise ConfigError(f"environment.id {config.id}: {module_name} has neither a class nor a Gymnasium id {name}{hint}")


def _from_registry(config: EnvironmentConfig, num_envs: int) -> VectorEnv[Any, Any, Any]:
    spec = gymnasium.spec(config.id.rpartition(":")[2])
    if spec.vector_entry_point is not None and not config.wrappers and not spec.additional_wrappers:
        arguments = _vector_arguments(config)
        return gymnasium.make_vec(config.id, num_envs, vectorization_mode="vector_entry_point", **arguments)

    def single() -> gymnasium.Env[Any, Any]:
        return gymnasium.make(
            config.id, max_episode_steps=config.max_episode_steps, disable_env_checker=True, **config.kwargs
        )

    return _vectorised(config, num_envs, single)


def _from_single_class(config: EnvironmentConfig, num_envs: int) -> VectorEnv[Any, Any, Any]:
    cls = import_object(config.id, "environment.id")

    def single() -> gymnasium.Env[Any, Any]:
        env = cls(**config.kwargs)
        limit = config.max_episode_steps
        return env if limit is None else gymnasium.wrappers.TimeLimit(env, limit)

    return _vectorised(config, num_envs, single)


def _from_vector_class(config: EnvironmentConfig, num_envs: int) -> VectorEnv[Any, Any, Any]:
    if config.wrappers:
        raise ConfigError(
            f"environment.wrappers: {config.id} is a vector environment, wrappers go around single ones; "
            "leave environment.wrappers empty"
        )
    cls = import_object(config.id, "environment.id")
    env: VectorEnv[Any, Any, Any] = cls(num_envs=num_envs, **_vector_arguments(config))
    return env


def _vector_arguments(config: EnvironmentConfig) -> dict[str, Any]:
    limit = {} if config.max_episode_steps is None else {"max_episode_steps": config.max_episode_steps}
    return {**config.kwargs, **limit}


def _vectorised(
    config: EnvironmentConfig, num_envs: int, single: Callable[[], gymnasium.Env[Any, Any]]
) -> VectorEnv[Any, Any, Any]:
    wrappers = [(path, import_object(path, "environment.wrappers")) for path in config.wrappers]

    def wrapped() -> gymnasium.Env[Any, Any]:
        env = single()
        for path, wrapper in wrappers:
            env = _wrap(path, wrapper, env)
        return env

    return SyncVectorEnv([wrapped] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def _wrap(path: str, wrapper: Any, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    try:
        wrapped = wrapper(env)
    except Exception as error:  # a wrapper may raise anything; name the field it came from
        raise ConfigError(f"environment.wrappers: {path} raised {type(error).__name__}: {_line(error)}") from error
    if not isinstance(wrapped, gymnasium.Env):
        raise ConfigError(f"environment.wrappers: {path} returned a {type(wrapped).__name__}, not a gymnasium.Env")
    return wrapped


def _check_registered(env_id: str, shown: str) -> None:
    if env_id in gymnasium.registry:
        return
    newest = _newest_version(env_id)
    if newest is not None:
        raise ConfigError(f"environment.id {shown} does not exist (any more); use {newest}")
    nearest = difflib.get_close_matches(env_id, list(gymnasium.registry), n=1, cutoff=0.0)
    raise ConfigError(
        f"environment.id {shown} is not a registered Gymnasium id; the nearest is {nearest[0]} "
        "(a package of your own: package.module:Class)"
    )


def _newest_version(env_id: str) -> str | None:
    """The registered id of the same name with the highest version."""
    name = _VERSION.sub("", env_id.rpartition(":")[2])
    versions = {
        int(match[1]): known
        for known in gymnasium.registry
        if (match := _VERSION.search(known)) and _VERSION.sub("", known) == name
    }
    return versions[max(versions)] if versions else None


def _missing_package(env_id: str, error: Exception) -> str:
    text = _line(error)
    if "pip install" not in text and isinstance(error, ModuleNotFoundError) and error.name:
        text += f"; run pip install {error.name.partition('.')[0]}"
    return f"environment.id {env_id} needs a package that is not installed: {text}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
