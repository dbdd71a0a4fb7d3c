"""The Grafana dashboard and Prometheus' config are what these programs expect."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana-headrace.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_it_has_what_an_import_needs() -> None:
    assert DASHBOARD["uid"] == "headrace" and DASHBOARD["title"] and "id" not in DASHBOARD
    assert isinstance(DASHBOARD["schemaVersion"], int) and DASHBOARD["schemaVersion"] >= 36
    datasource, run = DASHBOARD["templating"]["list"]
    assert (datasource["name"], datasource["type"], datasource["query"]) == ("datasource", "datasource", "prometheus")
    assert (run["name"], run["type"], run["refresh"]) == ("run", "query", 2)
    assert run["query"]["query"] == "label_values(headrace_run_state, run)"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) and min(ids) > 0
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == [
        "Throughput", "Who waits for what", "Replay", "Staleness", "Learner", "Restarts and losses",
        "Resources per role",
    ]  # fmt: skip


def test_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    rows = sorted({y for _, y in taken})
    assert all(after == before + 1 for before, after in pairwise(rows))


def test_every_panel_asks_for_the_chosen_run_alone() -> None:
    for panel in PANELS:
        assert panel["type"] in ("timeseries", "stat") and panel["description"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        for target in panel["targets"]:
            expression = target["expr"]
            named = re.findall(r"(?:headrace|process)_\w+(.{0,12})", expression)
            assert named and all(after.startswith('{run="$run"}'[:12]) for after in named), expression
            for opening, closing in ("()", "{}", "[]"):
                assert expression.count(opening) == expression.count(closing), expression


def test_counters_are_shown_as_rates_or_as_what_they_came_to() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            for rated in re.findall(r"rate\((\w+)", target["expr"]):
                assert rated.endswith(("_total", "_bucket")), target["expr"]


def test_prometheus_reads_where_runs_write() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    [discovery] = job["file_sd_configs"]
    assert all(file.endswith("/prometheus_targets.json") for file in discovery["files"])
