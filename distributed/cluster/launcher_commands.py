"""What Ray never looks at: the commands of a launcher file that set nodes up and start Ray on them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

import click
from ray.scripts.scripts import start as ray_start

from distributed.cluster import pins
from distributed.cluster.launcher_file import LauncherFile
from distributed.cluster.problem import Problem

_OPEN_FILES = 65536
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


def object_store_bytes(commands: Sequence[str]) -> int | None:
    """`--object-store-memory` of the command that starts Ray; None where it is not given."""
    found = _option(_start_command(commands), "object-store-memory")
    return int(found) if found and found.isdigit() else None


def stated_resources(commands: Sequence[str]) -> Iterator[Mapping[str, float]]:
    """Every set of resources that start commands name as JSON, as for `--resources`."""
    for text in re.findall(r"\{[^{}$]*\}", " ".join(commands).replace('\\"', '"')):
        try:
            yield {str(name): float(amount) for name, amount in json.loads(text).items()}
        except (ValueError, TypeError):
            continue  # braces of the shell


def _start_command(commands: Sequence[str]) -> str:
    return next((command for command in commands if "ray start" in command), "")


def _option(command: str, name: str) -> str | None:
    found = re.search(rf"--{name}[= ]+(\S+)", command)
    return found[1].strip("'\"") if found else None


def _pinned(file: LauncherFile) -> Iterator[Problem]:
    pinned = pins.constraints()
    for field, commands in file.setup_commands().items():
        for command in commands:
            yield from pins.unpinned(field, command, pinned)


def _starts(file: LauncherFile) -> Iterator[Problem]:
    for field in _STARTS:
        commands = file.commands(field)
        start = _start_command(commands)
        if not start:
            yield Problem(field, "no `ray start`; keep the one of the shipped file")
            continue
        if not any(
            re.fullmatch(r"\s*ray stop( --force)?\s*", command) for command in commands[: commands.index(start)]
        ):
            yield Problem(field, "no `ray stop` before `ray start`; a second `ray up` would find Ray running and fail")
        limit = re.search(r"ulimit -n (\d+)", start.partition("ray start")[0])
        if limit is None or int(limit[1]) < _OPEN_FILES:
            text = f"put `ulimit -n {_OPEN_FILES};` before `ray start` in the same command"
            yield Problem(field, f"too few open files for many actors; {text}")
        if object_store_bytes(commands) is None:
            text = "missing; Ray would take 30 % of a node's memory that shards count on"
            yield Problem(f"{field} --object-store-memory", text)


def _options(file: LauncherFile) -> Iterator[Problem]:
    """Has the command line of Ray itself read what it is started with."""
    for field in _STARTS:
        given = re.split(r"[;&|]", _start_command(file.commands(field)).partition("ray start")[2])[0]
        try:
            words = [word for word in shlex.split(given) if not word.startswith("$")]  # known only on the node
            ray_start.make_context("ray start", words)
        except click.ClickException as error:
            yield Problem(field, f"`ray start`: {error.format_message()} See `ray start --help`")
        except ValueError as error:
            yield Problem(field, f"`ray start`: {error}; correct the quotes")


def _addresses(file: LauncherFile) -> Iterator[Problem]:
    head, worker = (_start_command(file.commands(field)) for field in _STARTS)
    port = _option(head, "port")
    if head and ("--head" not in head or port is None):
        yield Problem(_STARTS[0], "`ray start` without --head or --port; give both, as in --head --port=6379")
    if worker and _option(worker, "address") != f"$RAY_HEAD_IP:{port}":
        yield Problem(_STARTS[1], f"`ray start` must have --address=$RAY_HEAD_IP:{port}, the port of the head")
    if head and "--autoscaling-config" not in head:
        text = "`ray start` without --autoscaling-config=~/ray_bootstrap_config.yaml would never start a worker; add it"
        yield Problem(_STARTS[0], text)
    host = _option(head, "dashboard-host")
    if host is not None and host not in _LOOPBACK:
        text = f"--dashboard-host={host} lets others submit jobs; make it 127.0.0.1 and come by `ray dashboard`"
        yield Problem(_STARTS[0], text)


def _token(file: LauncherFile) -> Iterator[Problem]:
    docker = file.complete.get("docker") or {}
    mode = re.compile(r"RAY_AUTH_MODE=(\w+)")
    for kind, field in zip(("head", "worker"), _STARTS, strict=True):
        options = " ".join([*docker.get("run_options", []), *docker.get(f"{kind}_run_options", [])])
        start = _start_command(file.commands(field)).partition("ray start")[0]
        modes = mode.findall(options) + mode.findall(start)
        if not modes or modes[-1] != "token":
            where = "docker.run_options" if docker else field
            text = "RAY_AUTH_MODE=token is not set; without it whoever reaches a port runs code on every node"
            yield Problem(where, f"{text} (the {kind}'s): set it")
    if not any(str(remote).endswith(".ray/auth_token") for remote in file.complete.get("file_mounts") or {}):
        text = "no node gets the token; mount ~/.ray/auth_token at .ray/auth_token of the user that runs Ray"
        yield Problem("file_mounts", text)
    if "RAY_AUTH_TOKEN=" in json.dumps(file.written):
        text = "RAY_AUTH_TOKEN= puts the token itself into the file; mount ~/.ray/auth_token instead"
        yield Problem("file_mounts", text)


COMMAND_RULES: tuple[Callable[[LauncherFile], Iterator[Problem]], ...] = (
    _pinned, _starts, _options, _addresses, _token,
)  # fmt: skip
