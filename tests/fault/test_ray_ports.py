"""What Ray itself shows to another host, started as our cluster files start it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from fault.processes import ROOT
from fault.ray_hosts import RAY, Node, TwoHosts, two_ray_hosts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FILES = ("cluster.yaml", "deploy/clusters/gcp.yaml", "deploy/clusters/on-prem.yaml")
_ADAPTED = ("--autoscaling-config", "--object-store-memory", "--resources")
"""What has to do with machines alone, and not with who may reach Ray."""


def head_options(file: str) -> list[str]:
    """Options of the `ray start` of a file's head."""
    [command] = [c for c in document(file)["head_start_ray_commands"] if "ray start" in c]
    words = shlex.split(command.partition("ray start")[2])
    return [word for word in words if not word.startswith(_ADAPTED)]


def container_environment(file: str) -> dict[str, str]:
    """What the containers of a file get with `--env`."""
    options = document(file)["docker"]["run_options"]
    return dict(option.removeprefix("--env ").split("=", 1) for option in options if option.startswith("--env "))


def document(file: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return content


@pytest.fixture(scope="module")
def head() -> Iterator[TwoHosts]:
    """A head on one host, as the files start it, with the token where they put it."""
    if find_spec("aiohttp_cors") is None:
        pytest.skip("the dashboard is not installed: pip install 'headrace[cluster]'")
    with two_ray_hosts() as hosts:
        token = hosts.place / ".ray" / "auth_token"
        token.parent.mkdir()
        Path(hosts.env["RAY_AUTH_TOKEN_PATH"]).rename(token)
        assert any(path.endswith("/.ray/auth_token") for path in document(FILES[0])["file_mounts"])
        ours = {name: value for name, value in hosts.env.items() if not name.startswith("RAY_AUTH")}
        hosts.env = ours | {"HOME": str(hosts.place)} | container_environment(FILES[0])
        where = [f"--node-ip-address={hosts.cable.client_ip}", f"--temp-dir={hosts.place}/a"]
        options = [*head_options(FILES[0]), *where]
        Node(hosts.cable.client_side, options, hosts.env, hosts.place / "head.log").wait_until_there()
        yield hosts


def test_all_files_start_their_heads_alike() -> None:
    for file in FILES[1:]:
        assert head_options(file) == head_options(FILES[0])
        assert container_environment(file) == container_environment(FILES[0])
    assert container_environment(FILES[0])["RAY_AUTH_MODE"] == "token"


def command(hosts: TwoHosts, side: tuple[str, ...], *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*side, *words], env={**hosts.env, **changes}, capture_output=True, text=True, timeout=120, cwd=hosts.place
    )


def test_jobs_are_taken_from_the_head_alone(head: TwoHosts) -> None:
    """With the token: on the head they are, from another host nothing listens there."""
    local, far = "http://127.0.0.1:8265", f"http://{head.cable.client_ip}:8265"
    deadline = time.monotonic() + 60
    while (listed := command(head, head.cable.client_side, RAY, "job", "list", "--address", local)).returncode:
        assert time.monotonic() < deadline, listed.stderr[-2000:]
    refused = command(head, head.cable.shard_side, RAY, "job", "submit", "--address", far, "--", "true")
    assert refused.returncode != 0 and "Failed to connect to Ray at address" in refused.stderr
    no_token = command(head, head.cable.client_side, RAY, "job", "list", "--address", local, RAY_AUTH_MODE="disabled")
    assert no_token.returncode != 0 and "Unauthorized" in no_token.stderr + no_token.stdout


@pytest.mark.parametrize("token", ["", "f" * 64])
def test_the_cluster_is_joined_with_its_token_alone(head: TwoHosts, token: str) -> None:
    changes = {"RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    address = f"{head.cable.client_ip}:6379"
    refused = command(head, head.cable.shard_side, RAY, "status", "--address", address, **changes)
    assert refused.returncode != 0 and "AuthenticationError" in refused.stderr
    assert command(head, head.cable.shard_side, RAY, "status", "--address", address).returncode == 0


def test_strangers_get_nothing_but_figures_from_whatever_listens(head: TwoHosts) -> None:
    """Every port of the head that another host reaches; one that Ray opens in future is tried, too."""
    listening = ["ss", "--listening", "--tcp", "--numeric", "--no-header"]
    shown = subprocess.run([*head.cable.client_side, *listening], capture_output=True, text=True, check=True).stdout
    places = [line.split()[3].rpartition(":") for line in shown.splitlines()]
    open_ports = sorted({port for host, _, port in places if not re.match(r"127\.|\[::ffff:127\.|\[::1\]", host)})
    program = [sys.executable, "-m", "fault.port_stranger", head.cable.client_ip, "8265", *open_ports]
    asked = command(head, head.cable.shard_side, *program, RAY_AUTH_MODE="disabled")
    assert asked.returncode == 0, asked.stderr[-2000:]
    found = json.loads(asked.stdout)
    assert found.pop("8265") == {"speaks": "refused"}
    assert {"6379", "8076", "10001"} <= set(found)
    for port, told in found.items():
        if told["speaks"] == "grpc":
            assert set(told["answers"].values()) <= {"UNAUTHENTICATED", "UNIMPLEMENTED"}, (port, told)
            continue
        answers = told["answers"]
        assert answers.pop("submit")[0] in (401, 405), (port, told)
        if answers["/"][0] == 401:  # an agent: who says nothing of who he is learns whether it is well
            assert {status for path, (status, _) in answers.items() if path != "/api/healthz"} == {401}, (port, told)
        else:  # Prometheus: the same page whatever is asked for
            assert all(status == 200 and text.startswith("# HELP ") for status, text in answers.values()), (port, told)
    guarded = [port for port, told in found.items() if "UNAUTHENTICATED" in told["answers"].values()]
    assert {"6379", "8076", "10001"} <= set(guarded), found
