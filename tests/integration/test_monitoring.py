"""Prometheus: every process of a run is scraped where `prometheus_targets.json` says, also after a restart."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distributed.status import run_state

pytestmark = pytest.mark.integration

ROLES = {"driver", "actor", "learner", "shard", "store", "evaluator"}
DASHBOARD = Path(__file__).parents[2] / "deploy" / "monitoring" / "grafana-headrace.json"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


def targets(run: Path) -> dict[tuple[str, str], str]:
    """(role, index) -> HOST:PORT."""
    file = run / "prometheus_targets.json"
    found = json.loads(file.read_text()) if file.exists() else []
    return {(part["labels"]["role"], part["labels"]["index"]): part["targets"][0] for part in found}


def used_by_dashboard() -> set[str]:
    """Metrics that the dashboard's panels name."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = " ".join(target["expr"] for panel in panels for target in panel.get("targets", ()))
    return set(re.findall(r"\b(?:headrace|process)_\w+", expressions))


class Scrape:
    """What one process says of itself."""

    def __init__(self, address: str) -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10.0) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        self.names = {family.name + suffix for family in families for suffix in SUFFIXES.get(family.type, ("",))}
        self.samples = [sample for family in families for sample in family.samples]

    def total(self, name: str) -> float:
        """Sum over labels."""
        return sum(sample.value for sample in self.samples if sample.name == name)

    @property
    def labels(self) -> set[str]:
        return {label for sample in self.samples for label in sample.labels}


def test_every_process_of_a_run_is_scraped_and_so_is_its_successor(
    headrace: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = headrace(
        "train", "movie_pick_dqn", "--run.prometheus", "true", "--environment.num-envs", "32",
        "--algorithm.hidden-sizes", "[16]", "--algorithm.batch-size", "64", "--replay.capacity", "20000",
        "--run.total-env-steps", "1e9",
        "--run.max-seconds", "1000", "--run.metrics-every-env-steps", "2000",
        "--run.checkpoint-every-env-steps", "5000", "--run-dir", str(run),
    )  # fmt: skip
    command.wait_for(lambda: {role for role, _ in targets(run)} == ROLES, 120)
    command.wait_for(lambda: run_state(run)["checkpoint"]["completed"] > 0, 60)
    before = targets(run)
    assert all(address.startswith("127.0.0.1:") for address in before.values())
    scrapes = {place: Scrape(address) for place, address in before.items()}
    of = {role: scrape for (role, _), scrape in scrapes.items()}
    assert of["actor"].total("headrace_actor_env_steps_total") > 0
    assert of["actor"].total("headrace_actor_acknowledged_records_total") > 0
    assert of["learner"].total("headrace_learner_updates_total") > 0
    assert of["learner"].total("headrace_learner_weights_bytes") > 100
    assert of["store"].total("headrace_store_weights_version") >= 1
    assert of["shard"].total("headrace_replay_records") > 0
    assert of["driver"].total("headrace_run_checkpoints_total") >= 1
    assert sum(of["driver"].total(f"headrace_run_{name}") for name in ("actors_acting", "env_steps_total")) > 0
    exported = set().union(*(scrape.names for scrape in scrapes.values()))
    assert used_by_dashboard() - exported == set() and len(used_by_dashboard()) > 30
    for scrape in scrapes.values():
        assert scrape.total("process_resident_memory_bytes") > 1e6
        assert not scrape.labels & {"run", "role", "index"}  # these come with the target

    [actor] = [place for place in before if place == ("actor", "0")]
    os.kill(command.descendants("ray::RolloutWorker")[0], signal.SIGKILL)
    command.wait_for(lambda: run_state(run)["restarts"] == 1, 60)
    command.wait_for(lambda: targets(run).keys() == before.keys() and targets(run) != before, 60)
    moved = [place for place, address in targets(run).items() if address != before[place]]
    assert [role for role, _ in moved] == ["actor"] and actor in targets(run)
    assert Scrape(targets(run)[moved[0]]).total("process_resident_memory_bytes") > 1e6
    assert Scrape(targets(run)["driver", "0"]).total("headrace_run_restarts_total") == 1
    os.kill(command.process.pid, signal.SIGTERM)  # as of systemd and Kubernetes: an orderly end as with Ctrl-C
    code, _, errors = command.finish(60)
    assert code == 0, errors
    assert run_state(run)["state"] == "interrupted"
    assert json.loads((run / "prometheus_targets.json").read_text()) == []
