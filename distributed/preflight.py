"""Refuses what cannot be trained before anything is started or written."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from distributed.build import make_spec, make_task, resolve_device
from distributed.config import ExperimentConfig
from learners.task import Task
from replay_server import connect
from replay_server.errors import ConfigError, SchemaMismatch, Unavailable

_CONNECT_SECONDS = 5.0


def check(config: ExperimentConfig) -> None:
    """Look for everything a run needs from outside: device, environment, Ray's head, shards that run elsewhere.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    _check_gpus(config, resolve_device(config.learner.device))
    task = make_task(config)
    config.algorithm.make_policy(task, env_indices=range(1), total_envs=1)  # its networks look at the observations
    if config.run.prometheus and find_spec("prometheus_client") is None:
        raise ConfigError("run.prometheus: needs the package prometheus-client; pip install 'headrace[metrics]'")
    if config.runtime == "ray":
        from distributed.ray_session import check_address  # only this runtime needs ray

        check_address(config.ray.address)
    if config.replay.addresses:
        _check_shards(config, task)


def _check_gpus(config: ExperimentConfig, device: str) -> None:
    processes = config.learner.processes
    if device == "cuda" and config.one_machine and torch.cuda.device_count() < processes:
        raise ConfigError(
            f"learner.processes is {processes}, each with a GPU of its own, and this machine has "
            f"{torch.cuda.device_count()}; lower it, or set learner.device to cpu"
        )


def _check_shards(config: ExperimentConfig, task: Task) -> None:
    addresses, spec = config.replay.addresses, make_spec(config, task)
    try:
        connect(addresses, spec=spec, transport=config.replay.transport, prefetch=0, timeout_s=_CONNECT_SECONDS).close()
    except Unavailable as error:
        raise ConfigError(
            f"replay.addresses: {error}; start the shards with headrace serve-replay, or drop replay.addresses"
        ) from error
    except SchemaMismatch as error:
        raise ConfigError(f"replay.addresses: {error}; serve a shard with the spec of this run") from error
    except ConfigError as error:
        raise ConfigError(f"replay.addresses: {error}") from error
