"""`ray job submit`, with an environment of the user's own, on nodes that do not share their files."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.worlds import MODULE

import headrace
from fault.processes import ROOT
from fault.ray_hosts import HEAD_PORT, RAY, TwoHosts, two_ray_hosts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_SETTINGS = [
    "train", "cartpole_dqn", "--environment.id", "my_world:Corridor", "--ray.placement", "roles",
    "--run.total-env-steps", "2000", "--learner.samples-per-insert", "4", "--evaluation.every-env-steps", "0",
    "--evaluation.final-episodes", "4",
]  # fmt: skip


@pytest.fixture(scope="module")
def hosts(soak: Any) -> Iterator[TwoHosts]:
    """A head that takes jobs, and a node for shard and actor that sees neither headrace nor the user's directory."""
    if not soak.full:
        pytest.skip("two whole runs that take minutes: with the full counts only")
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("the dashboard is not installed: pip install 'headrace[cluster]'")
    with two_ray_hosts() as made:
        del made.env["PYTHONPATH"]
        made.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), made.env["PATH"]])
        made.start_head(processors=1, takes_jobs=True)
        (project := made.place / "project").mkdir()
        hidden = {place / package: 1 for place in {ROOT, _installed(made)} for package in headrace.PACKAGES}
        made.start_node(processors=1, shards=1, mounts={**hidden, project: 1})
        for package in headrace.PACKAGES:
            shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
        shutil.copy(ROOT / "headrace.py", project)
        (project / "my_world.py").write_text(MODULE)
        yield made


def _installed(hosts: TwoHosts) -> Path:
    """Where an editable installation finds headrace."""
    ask = "import headrace; print(headrace.ROOT)"
    told = subprocess.run([sys.executable, "-c", ask], cwd="/", env=hosts.env, capture_output=True, text=True)
    return Path(told.stdout.strip()) if told.returncode == 0 else ROOT


def test_a_job_takes_headrace_and_the_users_environment_along(hosts: TwoHosts) -> None:
    address, run, project = "http://127.0.0.1:8265", hosts.runs / "job", hosts.place / "project"
    listed = [*hosts.cable.client_side, RAY, "job", "list", "--address", address]
    deadline = time.monotonic() + 60
    while subprocess.run(listed, env=hosts.env, capture_output=True).returncode:
        assert time.monotonic() < deadline
    train = ["python", "-m", "distributed", *_SETTINGS, "--ray.address", "auto", "--run-dir", str(run)]
    submit = [RAY, "job", "submit", "--address", address, "--working-dir", str(project), "--", *train]
    finishes(hosts, submit, hosts.place, run)


def test_a_driver_sends_its_directory_to_nodes_that_do_not_see_it(hosts: TwoHosts) -> None:
    run, project = hosts.runs / "driver", hosts.place / "project"
    where = ["--ray.address", f"{hosts.cable.client_ip}:{HEAD_PORT}", "--ray.working-dir", ".", "--run-dir", str(run)]
    finishes(hosts, [sys.executable, "-m", "headrace", *_SETTINGS, *where], project, run)


def finishes(hosts: TwoHosts, command: list[str], cwd: Path, run: Path) -> None:
    """A run whose actor and shard are on the other node."""
    done = subprocess.run(
        [*hosts.cable.client_side, *command], env=hosts.env, cwd=cwd, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    document = json.loads((run / "result.json").read_text())
    assert document["stopped_by"] == "total_env_steps" and document["restarts"] == 0
    assert document["evaluation"]["mean"] > 3.0  # ten is the most, five what chance gets
