"""Starting or joining Ray, and waiting for its answers with a deadline and typed errors."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError, RuntimeEnvSetupError

import headrace
from distributed.config import ExperimentConfig
from replay_server.errors import ConfigError, HeadraceError, WorkerDied

_CONNECT_SECONDS = 5.0


def start_ray(config: ExperimentConfig) -> bool:
    """Start a private Ray or join the cluster at `ray.address`; a Ray of this process is used as it is.

    Returns:
        Whether it was started or joined here, and so is to be left here.

    Raises:
        ConfigError: nothing answers at `ray.address`, or `ray.working_dir` cannot be sent.
        WorkerDied: it did not start.
    """
    if ray.is_initialized():
        return False
    local = config.one_machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keep Ray's advice off the screen
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets anything else on the machine starve a run
    if local:  # its control service never comes back: who outlives it would look for it for a minute (two agents do)
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # `get` turns every error into one of ours
    # Processes of one machine share its processors as the kernel sees fit: a laptop may run more actors than cores.
    processors = max(os.cpu_count() or 1, config.actors.count + config.learner.processes) if local else None
    env = _runtime_env(config)
    try:
        with _own_signal_handlers():
            ray.init(
                address=config.ray.address,
                include_dashboard=False if local else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=env,
                num_cpus=processors,
            )
    except RuntimeEnvSetupError as error:
        reason = str(error).splitlines()[-1]
        raise ConfigError(
            f"ray.working_dir: cannot send {config.ray.working_dir!r} ({reason}); name what need not travel in its "
            ".rayignore, or name a smaller directory"
        ) from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"ray.address: cannot use {config.ray.address!r} ({reason}); try local") from error
    except Exception as error:  # Ray has no type for a node that is not up within the 30 s it gives it
        reason = str(error).splitlines()[0]
        raise WorkerDied(
            f"Ray did not start ({reason}); the machine is too busy or short of memory: try again"
        ) from error
    return True


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """SIGTERM goes to whom it went before: Ray takes it for itself and ends the process without a checkpoint."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _runtime_env(config: ExperimentConfig) -> dict[str, Any]:
    """What workers start with: where they find modules, and a directory that travels to those on other nodes."""
    env: dict[str, Any] = {"env_vars": {"PYTHONPATH": headrace.python_path()}}
    if config.ray.working_dir is not None:
        directory = os.path.abspath(config.ray.working_dir)
        if not os.path.isdir(directory):
            raise ConfigError(f"ray.working_dir: {directory} is no directory")
        headrace.refuse_hiding(directory)
        env |= {"working_dir": directory, "excludes": [".git", "__pycache__", config.run.directory]}
    return env


def check_address(address: str) -> None:
    """Refuse a `ray.address` HOST:PORT where nothing listens; Ray itself would try for minutes.

    Raises:
        ConfigError: nothing answers there.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return  # local or auto, which Ray answers at once
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"ray.address: nothing answers at {address!r} ({error}); start a head with `ray start --head`, or use local"
        ) from error


def get(call: Any, seconds: float, who: str) -> Any:
    """The answer of an actor's method.

    Raises:
        WorkerDied: the process has ended or did not answer in time, or failed in an unforeseen way.
        HeadraceError: what the method raised.
    """
    try:
        return ray.get(call, timeout=seconds)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, HeadraceError):
            raise cause from error
        raise WorkerDied(f"{who} failed: {type(cause).__name__}: {cause}") from error
    except GetTimeoutError as error:
        raise WorkerDied(f"{who} did not answer within {seconds:.0f} s") from error
    except RayActorError as error:
        raise WorkerDied(f"{who} has died") from error
