"""What Ray's validation of a launcher file skips: machines, resources, images, file mounts, keys, placeholders."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from distributed.cluster import pins, roles
from distributed.cluster.launcher_commands import COMMAND_RULES, object_store_bytes, stated_resources
from distributed.cluster.launcher_file import LauncherFile
from distributed.cluster.problem import Problem, placeholders
from distributed.cluster.sizes import docker_bytes
from distributed.config import ExperimentConfig
from replay_server.errors import ConfigError

_TYPES = "available_node_types"


def check_launcher(file: LauncherFile) -> list[Problem]:
    """Everything our own rules find, in the order of the rules."""
    return [problem for rule in (*_RULES, *COMMAND_RULES) for problem in rule(file)]


def offers(file: LauncherFile) -> list[roles.Offer]:
    """What each kind of node has; nodes of the provider `local` say so where they start Ray, and find their CPUs."""
    if file.provider == "local":
        workers = len(file.complete["provider"].get("worker_ips", [])) or file.complete["max_workers"]
        found = [("head_start_ray_commands", 1), ("worker_start_ray_commands", workers)]
        return [
            roles.Offer(field, {"CPU": math.inf, **resources}, nodes)
            for field, nodes in found
            for resources in ({}, *stated_resources(file.commands(field)))
        ]
    return [
        roles.Offer(
            f"{_TYPES}.{name}.resources",
            node_type["resources"],
            1 if name == file.complete["head_node_type"] else node_type["max_workers"],
        )
        for name, node_type in file.node_types.items()
    ]


def _names(file: LauncherFile) -> Iterator[Problem]:
    name = file.written.get("cluster_name", "")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", name):
        text = "give it a name of lower-case letters, digits and dashes: `ray down` finds the machines by it"
        yield Problem("cluster_name", f"{name!r} is no name for a cluster; {text}")


def _filled_in(file: LauncherFile) -> Iterator[Problem]:
    return placeholders(file.written)


def _running_ray(file: LauncherFile) -> Iterator[Problem]:
    if (wanted := pins.constraints()["ray"]) != ray.__version__:
        text = f"constraints.txt has ray=={wanted} and this command runs Ray {ray.__version__}"
        yield Problem("setup_commands", f"{text}; install ray=={wanted} here, or the cluster will not understand it")


def _machines(file: LauncherFile) -> Iterator[Problem]:
    needed: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "aws": (("region",), ("InstanceType", "ImageId")),
        "gcp": (("region", "availability_zone", "project_id"), ("machineType", "disks")),
    }
    of_provider, of_node = needed.get(file.provider, ((), ()))
    for key in of_provider:
        if not file.written["provider"].get(key):
            yield Problem(f"provider.{key}", "missing; it must be given, nothing good can be guessed")
    for name, node_type in file.node_types.items():
        for key in of_node:
            if not node_type["node_config"].get(key):
                text = "missing; it must be given"
                if key == "ImageId":
                    text += ": Ray's own choice, of Ubuntu 18.04, has GPU drivers too old for this torch"
                yield Problem(f"{_TYPES}.{name}.node_config.{key}", text)


def _worker_counts(file: LauncherFile) -> Iterator[Problem]:
    for name, node_type in file.node_types.items():
        least, most = node_type.get("min_workers", 0), node_type.get("max_workers", 0)
        if least > most:
            yield Problem(f"{_TYPES}.{name}.max_workers", f"is {most}, below min_workers of {least}; raise it")
        elif name == file.complete["head_node_type"] and most > 0 and file.provider != "local":
            yield Problem(f"{_TYPES}.{name}.max_workers", f"is {most}: more heads than one; make it 0")
        elif most > file.complete["max_workers"]:
            total = file.complete["max_workers"]
            yield Problem(f"{_TYPES}.{name}.max_workers", f"is {most}, above max_workers of {total} for all; lower it")


def _resources(file: LauncherFile) -> Iterator[Problem]:
    if file.provider != "local":
        for name, node_type in file.node_types.items():
            for key in ("CPU", "memory"):
                if key not in node_type["resources"]:
                    text = "missing; say how much Ray may use of a node: what it finds by itself leaves nothing over"
                    yield Problem(f"{_TYPES}.{name}.resources.{key}", text)
    yield from roles.unmet(offers(file), "provider.worker_ips" if file.provider == "local" else _TYPES)


def _docker(file: LauncherFile) -> Iterator[Problem]:
    docker: Mapping[str, Any] = file.complete.get("docker") or {}
    if not docker:
        return
    pinned = pins.constraints()
    for key in ("image", "head_image", "worker_image"):
        if key in docker:
            yield from pins.image(f"docker.{key}", docker[key], pinned)
    for name, node_type in file.node_types.items():
        if "worker_image" in (own := node_type.get("docker", {})):
            yield from pins.image(f"{_TYPES}.{name}.docker.worker_image", own["worker_image"], pinned)
    for kind in ("head", "worker"):
        options = " ".join([*docker.get("run_options", []), *docker.get(f"{kind}_run_options", [])])
        found = re.findall(r"--shm-size[= ]+(\S+)", options)
        field, store = "docker.run_options", object_store_bytes(file.commands(f"{kind}_start_ray_commands"))
        if not found:
            yield Problem(field, f"no --shm-size for the {kind}; give it as much as --object-store-memory or more")
        elif store is not None:
            try:
                size = docker_bytes(found[-1])
            except ConfigError as error:
                yield Problem(field, f"--shm-size: {error}")
                continue
            if size < store:
                text = f"--shm-size={found[-1]} is less than --object-store-memory={store} of the {kind}"
                yield Problem(field, f"{text}; raise it, or Ray keeps its objects on disk")


def _file_mounts(file: LauncherFile) -> Iterator[Problem]:
    for remote, local in (file.complete.get("file_mounts") or {}).items():
        path = Path(os.path.expanduser(local))
        if path.exists():
            continue
        text = "`ray get-auth-token --generate` makes it" if path.name == "auth_token" else "correct the path"
        where = "" if path.is_absolute() else f" in {Path.cwd()}, from where ray up would look for it"
        yield Problem(f"file_mounts.{remote}", f"{local} does not exist{where}; {text}")


def _keys(file: LauncherFile) -> Iterator[Problem]:
    auth: Mapping[str, Any] = file.complete.get("auth") or {}
    if not auth.get("ssh_user"):
        yield Problem("auth.ssh_user", "missing; give the user that machines are entered as, such as ubuntu")
    if (private := auth.get("ssh_private_key")) is not None:
        yield from _private_key(private)
    if file.provider == "aws":
        for name, node_type in file.node_types.items():
            if ("KeyName" in node_type["node_config"]) != (private is not None):
                text = "auth.ssh_private_key and KeyName of every node type belong together; give both or neither"
                yield Problem(f"{_TYPES}.{name}.node_config.KeyName", text)


def _private_key(name: str) -> Iterator[Problem]:
    field, path = "auth.ssh_private_key", Path(os.path.expanduser(name))
    if not path.is_file():
        yield Problem(field, f"{name} does not exist; `ssh-keygen -t ed25519 -f {name}` makes a key")
    elif "PRIVATE KEY-----" not in path.read_text(errors="replace").partition("\n")[0]:
        yield Problem(field, f"{name} is no private key; name the file without .pub")
    elif path.stat().st_mode & 0o077:
        yield Problem(field, f"others may read {name}, and ssh refuses such keys; `chmod 600 {name}`")


def _no_settings(file: LauncherFile) -> Iterator[Problem]:
    """Machines are one thing and experiments another: a file that holds both answers two questions wrongly."""
    sections = ExperimentConfig.__struct_fields__
    for key in file.written.get("metadata") or {}:
        if key in sections:
            yield Problem(f"metadata.{key}", "a setting of a run; it belongs into the run's config")
    setting = re.compile(rf"(headrace|-m distributed) train|--({'|'.join(sections)})\.")
    for field, commands in _every_command(file).items():
        for command in commands:
            if found := setting.search(command):
                yield Problem(field, f"`{found[0]}` is about a run; leave it to `ray job submit`")


def _every_command(file: LauncherFile) -> Mapping[str, list[str]]:
    starts = {f"{kind}_start_ray_commands": file.commands(f"{kind}_start_ray_commands") for kind in ("head", "worker")}
    return {**file.setup_commands(), **starts}


_RULES: tuple[Callable[[LauncherFile], Iterator[Problem]], ...] = (
    _names, _filled_in, _running_ray, _machines, _worker_counts, _resources, _docker, _file_mounts, _keys, _no_settings,
)  # fmt: skip
