"""The shipped cluster files are right, and every mistake seeded into one is found and named."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from distributed.cli import main
from distributed.cluster import launcher_file
from distributed.cluster.check import check_launcher_file
from distributed.cluster.pins import constraints, requirements, unpinned
from distributed.cluster.roles import Offer, unmet
from distributed.cluster.sizes import docker_bytes, kubernetes_bytes
from replay_server.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILLED = {
    "cluster.yaml": "ami-0123456789abcdef0",
    "deploy/clusters/gcp.yaml": "my-own",
    "deploy/clusters/on-prem.yaml": "10.0.0.7",
}
"""Shipped file -> what stands in for its placeholders."""


def filled(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / name).read_text().replace("CHANGE-ME", FILLED[name]))
    return document


@pytest.fixture(scope="module")
def shipped() -> Mapping[str, dict[str, Any]]:
    return {name: filled(name) for name in FILLED}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a token and a key, who stands in the checkout."""
    for name, text in ((".ray/auth_token", "t"), (".ssh/headrace", "-----BEGIN OPENSSH PRIVATE KEY-----\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return tmp_path


def found_in(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    problems, _ = check_launcher_file(Path("some.yaml"), document)
    return [(problem.field, problem.text) for problem in problems]


@pytest.mark.parametrize("name", FILLED)
def test_shipped_files_are_right_once_they_are_filled_in(name: str, shipped: Mapping[str, dict[str, Any]]) -> None:
    assert found_in(shipped[name]) == []


@pytest.mark.parametrize("name", FILLED)
def test_shipped_files_say_what_is_to_be_filled_in(name: str) -> None:
    problems = found_in(yaml.safe_load((ROOT / name).read_text()))
    assert problems and all("still to be filled in" in text for _, text in problems)


@pytest.mark.parametrize("name", FILLED)
def test_checkpoints_can_be_copied_to_where_a_line_is_taken_in(
    name: str, shipped: Mapping[str, dict[str, Any]]
) -> None:
    assert any("fsspec==" in text for command in shipped[name]["setup_commands"] for text in requirements(command))
    packages = {"cluster.yaml": ["s3fs"], "deploy/clusters/gcp.yaml": ["gcsfs"]}.get(name, ["s3fs", "gcsfs"])
    lines = [line for line in (ROOT / name).read_text().splitlines() if line.startswith("  # - pip install")]
    document = copy.deepcopy(shipped[name])
    document["setup_commands"] += [line.removeprefix("  # - ") for line in lines]
    assert [text.partition("==")[0] for line in lines for text in requirements(line)] == packages
    assert found_in(document) == []


def test_the_command_prints_one_line_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    document = filled("cluster.yaml")
    good.write_text(yaml.safe_dump(document))
    bad.write_text(yaml.safe_dump({**document, "cluster_name": "Mine", "file_mounts": {}}))
    assert main(["cluster", "check", str(good)]) == 0
    assert "for aws; nodes for the learner: 1, for actors: 13, room for shards: 4" in capsys.readouterr().out
    assert main(["cluster", "check", str(good), str(bad)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2:4] for line in lines] == [[str(bad), "cluster_name"], [str(bad), "file_mounts"]]
    assert main(["cluster", "check", str(tmp_path / "none.yaml")]) == 2
    bad.write_bytes(b"\x99")
    capsys.readouterr()
    assert main(["cluster", "check", str(bad)]) == 2
    assert "not UTF-8 text" in capsys.readouterr().err
    assert main(["cluster"]) == 2


Change = Callable[[dict[str, Any]], object]
HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"


def put(*path: Any, value: Any) -> Change:
    """Sets what a path of keys leads to."""

    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def drop(*path: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def swap(field: str, old: str, new: str) -> Change:
    """Replaces a text in all entries of a list."""

    def change(document: dict[str, Any]) -> None:
        section, _, key = field.partition(".")
        holder = document[section] if key else document
        before = holder[key or section]
        holder[key or section] = [text.replace(old, new) for text in before]
        assert holder[key or section] != before

    return change


TYPES = "available_node_types"
MISTAKES: dict[str, tuple[Change, str, str]] = {
    # What Ray's own validation refuses.
    "typo at the top": (put("max_worker", value=3), "max_worker", "did you mean max_workers?"),
    "typo in a node type": (
        put(TYPES, "replay", "min_worker", value=1), f"{TYPES}.replay.min_worker", "did you mean min_workers?"
    ),
    "head of no type": (put("head_node_type", value="leaner"), "head_node_type", "must be one of"),
    "no resources": (drop(TYPES, "actors", "resources"), f"{TYPES}.actors.resources", "missing"),
    "half a CPU": (put(TYPES, "actors", "resources", "CPU", value=0.5), f"{TYPES}.actors.resources.CPU", "an integer"),
    "fewer workers in all than asked for": (put(TYPES, "actors", "min_workers", value=99), "max_workers", "smaller"),
    "container without a name": (drop("docker", "container_name"), "docker", "docker.container_name"),
    "unknown docker key": (put("docker", "images", value="x"), "docker.images", "did you mean image?"),
    "unknown provider": (put("provider", "type", value="awz"), "provider", "awz"),
    "no provider": (drop("provider"), "provider.type", "missing"),
    "local with node types": (
        put("provider", value={"type": "local", "head_ip": "a", "worker_ips": []}), TYPES, "for on-premise"
    ),
    "workers as a word": (put("max_workers", value="many"), "max_workers", "an integer"),
    # What it lets pass.
    "no name": (drop("cluster_name"), "cluster_name", "no name for a cluster"),
    "no region": (drop("provider", "region"), "provider.region", "missing"),
    "no instance type": (
        drop(TYPES, "replay", "node_config", "InstanceType"), f"{TYPES}.replay.node_config.InstanceType", "missing"
    ),
    "no image of our own": (
        drop(TYPES, "learner", "node_config", "ImageId"), f"{TYPES}.learner.node_config.ImageId", "drivers too old"
    ),
    "least above most": (put(TYPES, "replay", "min_workers", value=5), f"{TYPES}.replay.max_workers", "below min"),
    "second head": (put(TYPES, "learner", "max_workers", value=1), f"{TYPES}.learner.max_workers", "make it 0"),
    "most above all": (put(TYPES, "replay", "max_workers", value=17), f"{TYPES}.replay.max_workers", "lower it"),
    "memory left to Ray": (drop(TYPES, "replay", "resources", "memory"), f"{TYPES}.replay.resources.memory", "missing"),
    "no node for shards": (drop(TYPES, "replay", "resources", "replay"), TYPES, "no node has room for replay shards"),
    "no node for the learner": (drop(TYPES, "learner", "resources", "learner"), TYPES, "room for the learner"),
    "shards nowhere": (put(TYPES, "replay", "max_workers", value=0), TYPES, "no node has room for replay shards"),
    "dashboard open": (swap(HEAD, "127.0.0.1", "0.0.0.0"), HEAD, "--dashboard-host=0.0.0.0"),
    "Ray's own start commands": (drop(HEAD), HEAD, "--dashboard-host=0.0.0.0"),
    "Ray's own setup commands": (drop("setup_commands"), "setup_commands", "ray has no version"),
    "token off": (swap("docker.run_options", "token", "disabled"), "docker.run_options", "RAY_AUTH_MODE=token"),
    "token not mounted": (drop("file_mounts", "/home/ray/.ray/auth_token"), "file_mounts", "no node gets the token"),
    "token in the file": (swap("docker.run_options", "--env", "--env RAY_AUTH_TOKEN=a --env"), "file_mounts", "itself"),
    "Ray unpinned": (swap("setup_commands", "ray[default]==2.60.0", "ray[default]"), "setup_commands", "no version"),
    "torch of another version": (swap("setup_commands", "torch==2.13.0", "torch==2.12"), "setup_commands", "==2.13.0"),
    "package of nowhere": (swap("setup_commands", "rich==", "poor=="), "setup_commands", "poor is not in constraints"),
    "image without a version": (put("docker", "head_image", value="rayproject/ray"), "docker.head_image", "tomorrow"),
    "image called latest": (
        put("docker", "worker_image", value="rayproject/ray:latest-py311"), "docker.worker_image", "tomorrow"
    ),
    "image with another Ray": (
        put("docker", "worker_image", value="rayproject/ray:2.59.0-py311"), "docker.worker_image", "another Ray"
    ),
    "no such file mount": (
        put("file_mounts", "/home/ray/x", value="no/such"), "file_mounts./home/ray/x", "does not exist"
    ),
    "no such token": (
        put("file_mounts", "/home/ray/.ray/auth_token", value="~/none/auth_token"),
        "file_mounts./home/ray/.ray/auth_token",
        "ray get-auth-token --generate",
    ),
    "shm too small": (swap("docker.run_options", "3g", "1g"), "docker.run_options", "less than --object-store-memory"),
    "shm of no size": (swap("docker.run_options", "3g", "much"), "docker.run_options", "no amount of memory"),
    "shm left to docker": (swap("docker.run_options", "--shm-size=3g", "--init"), "docker.run_options", "--shm-size"),
    "store left to Ray": (
        swap(WORKER, "--object-store-memory=2147483648", ""), f"{WORKER} --object-store-memory", "missing"
    ),
    "no ray stop": (swap(HEAD, "ray stop", "true"), HEAD, "no `ray stop`"),
    "no ray start": (put(WORKER, value=["ray stop"]), WORKER, "no `ray start`"),
    "few open files": (swap(WORKER, "ulimit -n 65536", "ulimit -n 1024"), WORKER, "open files"),
    "another port": (swap(HEAD, "6379", "6380"), WORKER, "--address=$RAY_HEAD_IP:6380"),
    "typo in a start command": (swap(HEAD, "--dashboard-host", "--dashbord-host"), HEAD, "No such option"),
    "port as a word": (swap(HEAD, "8076", "many"), HEAD, "not a valid integer"),
    "quote without an end": (swap(WORKER, "8076", "'8076"), WORKER, "correct the quotes"),
    "no head": (swap(HEAD, "--head ", ""), HEAD, "without --head"),
    "no autoscaler": (swap(HEAD, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""), HEAD, "never start a worker"),
    "nobody to log in as": (drop("auth", "ssh_user"), "auth.ssh_user", "missing"),
    "public key": (put("auth", "ssh_private_key", value="constraints.txt"), "auth.ssh_private_key", "no private key"),
    "no such key": (put("auth", "ssh_private_key", value="~/none"), "auth.ssh_private_key", "ssh-keygen"),
    "key without KeyName": (
        put("auth", "ssh_private_key", value="~/.ssh/headrace"),
        f"{TYPES}.learner.node_config.KeyName",
        "belong together",
    ),
    "setting of a run in metadata": (put("metadata", value={"algorithm": {}}), "metadata.algorithm", "run's config"),
    "setting of a run in a command": (
        swap(HEAD, "ray stop", "ray stop; headrace train --actors.count 9"), HEAD, "`headrace train`"
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_seeded_mistake_is_named(mistake: str, shipped: Mapping[str, dict[str, Any]]) -> None:
    change, field, words = MISTAKES[mistake]
    document = copy.deepcopy(shipped["cluster.yaml"])
    change(document)
    problems = found_in(document)
    assert any(at == field and words in text for at, text in problems), problems


def test_a_key_that_others_may_read_is_refused(home: Path, shipped: Mapping[str, dict[str, Any]]) -> None:
    (home / ".ssh/headrace").chmod(0o644)
    assert [at for at, _ in found_in(shipped["deploy/clusters/on-prem.yaml"])] == ["auth.ssh_private_key"]


def test_machines_of_ones_own_need_a_node_for_shards(shipped: Mapping[str, dict[str, Any]]) -> None:
    document = copy.deepcopy(shipped["deploy/clusters/on-prem.yaml"])
    swap(WORKER, "replay", "cache")(document)
    assert ("provider.worker_ips", "replay shards") in [(at, text[21:34]) for at, text in found_in(document)]


def test_another_ray_is_told_apart(monkeypatch: pytest.MonkeyPatch, shipped: Mapping[str, dict[str, Any]]) -> None:
    monkeypatch.setattr(ray, "__version__", "2.61.0")
    with pytest.raises(ConfigError, match=r"validation of Ray 2\.60\.x, this is 2\.61\.0"):
        launcher_file.read(Path("some.yaml"), shipped["cluster.yaml"])
    monkeypatch.setattr(ray, "__version__", "2.60.9")
    assert [at for at, _ in found_in(shipped["cluster.yaml"])] == ["setup_commands"]


def test_a_learner_beside_a_gpu_it_cannot_use_is_named() -> None:
    nodes = [Offer("big", {"GPU": 1, "CPU": 8}, 1), Offer("small", {"CPU": 4, "learner": 1, "replay": 1}, 1)]
    assert [problem.field for problem in unmet(nodes, "all")] == ["small"]


def test_requirements_are_read_out_of_shell() -> None:
    command = "true && pip install -q --constraint c.txt -i https://x 'a[b]==1' c; echo d || pip install e"
    assert list(requirements(command)) == ["a[b]==1", "c", "e"]
    assert not list(unpinned("x", "pip install Torch==" + constraints()["torch"], constraints()))


@pytest.mark.parametrize(
    ("read", "text", "amount"),
    [
        (docker_bytes, "3g", 3 << 30),
        (docker_bytes, "512MB", 512 << 20),
        (docker_bytes, "7", 7),
        (kubernetes_bytes, "3Gi", 3 << 30),
        (kubernetes_bytes, "1.5G", 1_500_000_000),
        (kubernetes_bytes, "7", 7),
    ],
)
def test_sizes(read: Callable[[str], int], text: str, amount: int) -> None:
    assert read(text) == amount
    with pytest.raises(ConfigError, match="no amount of memory"):
        read("lots")
