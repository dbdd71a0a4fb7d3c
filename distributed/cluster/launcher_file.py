"""A file for Ray's cluster launcher as it is written and as Ray completes it, after Ray's own validation."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from jsonschema import ValidationError

from distributed.cluster.problem import Problem, from_schema
from replay_server.errors import ConfigError

_KNOWN_RAY = "2.60."  # whose private module was read; another one may complete files differently
_FIELDS = (
    "available_node_types", "head_node_type", "max_workers", "min_workers", "head_node", "worker_nodes", "head_ip",
    "worker_ips", "provider", "docker", "cluster_synced_files", "file_mounts", "auth",
)  # fmt: skip
_COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands")


@dataclass(frozen=True)
class LauncherFile:
    """One launcher file.

    Args:
        path: where it is.
        written: what is in it.
        complete: the same with Ray's defaults for whatever it leaves out: what `ray up` goes by.
    """

    path: Path
    written: Mapping[str, Any]
    complete: Mapping[str, Any]

    @property
    def provider(self) -> str:
        """`aws`, `gcp`, `local`, ..."""
        return str(self.complete["provider"]["type"])

    @property
    def node_types(self) -> Mapping[str, Any]:
        """Name -> node type; one of Ray's own making for the provider `local`."""
        types: Mapping[str, Any] = self.complete["available_node_types"]
        return types

    def commands(self, field: str) -> list[str]:
        """The commands of a field, Ray's own where the file says nothing."""
        given: list[str] = self.complete[field] or []
        if field in _COMMANDS[1:]:  # Ray has put the common ones in front of these two
            return given[len(self.complete["setup_commands"] or []) :]
        return given

    def setup_commands(self) -> Mapping[str, list[str]]:
        """Field -> commands that set nodes up."""
        found = {field: self.commands(field) for field in _COMMANDS}
        for name, node_type in self.node_types.items():
            found[f"available_node_types.{name}.worker_setup_commands"] = node_type.get("worker_setup_commands", [])
        return found


def read(path: Path, written: Mapping[str, Any]) -> LauncherFile | Problem:
    """Have Ray complete and validate a file, without a cloud and without a network.

    Returns:
        The file, or the first thing that Ray finds wrong with it.

    Raises:
        ConfigError: the Ray that runs is not the one whose validation is known.
    """
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError:
        known = False
    else:
        known = ray.__version__.startswith(_KNOWN_RAY)
    if not known:
        raise ConfigError(
            f"cluster files are checked by the validation of Ray {_KNOWN_RAY}x, this is {ray.__version__}"
        )
    provider = written.get("provider")
    if not isinstance(provider, Mapping) or not isinstance(provider.get("type"), str):
        return Problem("provider.type", "missing; it must be given, such as aws, gcp or local")
    said = io.StringIO()  # Ray prints its errors as well
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            complete = prepare_config(dict(written))
            validate_config(complete)
    except ValidationError as error:
        return from_schema(error)
    except AssertionError as error:  # the only one is about the container
        return Problem("docker", f"{error}; give docker.image and docker.container_name")
    except (
        Exception
    ) as error:  # click's, ValueError, NotImplementedError, RuntimeError, and what a wrong type runs into
        return _from_ray(str(error) or type(error).__name__)
    return LauncherFile(path, written, complete)


def _from_ray(message: str) -> Problem:
    """Ray's own words, with the field that they name first."""
    places = [(found.start(), name) for name in _FIELDS if (found := re.search(rf"\b{name}\b", message))]
    field = min(places)[1] if places else "the file"
    prefix = "provider." if field in ("head_ip", "worker_ips") else ""
    return Problem(prefix + field, f"{message.rstrip('.')}; correct or remove it")
