"""What the shipped configs learn: every seed's final evaluation, wall-clock and steps, against a stated threshold.

    python benchmarks/learning.py --json benchmarks/results/learning.json
    python benchmarks/learning.py --configs pendulum_td3 --json benchmarks/results/learning.json
    python benchmarks/learning.py --table --json benchmarks/results/learning.json

One `headrace train CONFIG --seeds N` each; exits with 1 when a seed stays below its threshold or over its time. What is
measured takes the place of the config's earlier entry in the file and leaves the others alone; each entry says when, at
which commit and on what machine. Further arguments are settings of every run. `--table` measures nothing and prints
the file as Markdown. Configs that learn on a log find it in the directory that HEADRACE_DATA names; without it they are
left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from provenance import ROOT, provenance


class Target(NamedTuple):
    """A mean return and means of episode metrics to reach on fresh episodes, within so many seconds of training.

    `log` names a file of ratings in DATA, for configs whose users are fitted on one. `collect` is what
    `headrace collect` is told to make the log that a run without actors learns from.
    """

    mean_return: float
    seconds: float
    metrics: dict[str, float] | None = None
    log: str | None = None
    collect: list[str] | None = None


DATA = Path(os.environ.get("HEADRACE_DATA", ROOT.parent / "shared" / "data"))
TARGETS = {
    "movie_pick_dqn": Target(340.0, 90.0),
    "next_item_reinforce": Target(20.0, 600.0, {"recall_at_20": 0.45}, collect=["--policy", "random", "--organic"]),
    "next_item_gru": Target(20.0, 600.0, {"recall_at_20": 0.45}, collect=["--policy", "random", "--organic"]),
    "next_item_clicks": Target(18.0, 600.0),
    "cartpole_dqn": Target(475.0, 60.0),
    "cartpole_c51": Target(475.0, 60.0),
    "cartpole_qr_dqn": Target(475.0, 60.0),
    "cartpole_reinforce": Target(475.0, 60.0),
    "acrobot_dqn": Target(-100.0, 60.0),
    "lunarlander_dqn": Target(220.0, 180.0),
    "pendulum_ddpg": Target(-200.0, 30.0),
    "pendulum_td3": Target(-200.0, 30.0),
    "lunarlander_continuous_td3": Target(200.0, 360.0),
    "proto_action_hidden_td3": Target(14.8, 600.0),  # half of the Kalman filter's
    "proto_action_planning_td3": Target(35.7, 600.0),  # the myopic oracle's
    "proto_action_td3": Target(59.0, 600.0),
    "slate_mnl_slateq": Target(337.0, 600.0),
    "news_session_dqn": Target(200.0, 600.0, {"clicks": 200.0}),
    "log_users_dqn": Target(15.0, 150.0, log="ml-1m/ratings_chronological.csv.gz"),
}


def train(config: str, seeds: int, settings: list[str]) -> list[dict[str, Any]]:
    """The `result.json` of every seed, with all its periodic evaluations."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        command = [sys.executable, "-m", "headrace", "train", config, "--seeds", str(seeds), "--run-dir", str(run)]
        if log := TARGETS[config].log:
            users = Path(directory) / "users.npz"
            command += ["--environment.kwargs.log", str(DATA / log), "--environment.kwargs.model", str(users)]
        if (told := TARGETS[config].collect) is not None:
            collected = str(Path(directory) / "log")
            collect = [sys.executable, "-m", "headrace", "collect", config, *told, "--output", collected]
            subprocess.run(collect, cwd=ROOT, check=True)
            command += ["--replay.init-from", collected]
        subprocess.run([*command, *settings], cwd=ROOT, check=True)
        results: list[dict[str, Any]] = json.loads((run / "result.json").read_text())["seeds"]
        return results


def good(target: dict[str, Any], result: dict[str, Any]) -> bool:
    """Whether one seed reached its thresholds in its time."""
    evaluation = result["evaluation"]
    if evaluation is None or evaluation["mean"] < target["mean_return"] or result["wall_seconds"] > target["seconds"]:
        return False
    least: dict[str, float] = target.get("metrics") or {}
    return all(evaluation["metrics"][name]["mean"] >= value for name, value in least.items())


def row(name: str, kept: dict[str, Any]) -> str:
    """One line of the table, in Markdown."""
    target, results = kept["target"], kept["seeds"]
    means = [result["evaluation"]["mean"] for result in results]
    spread = statistics.stdev(means) if len(means) > 1 else 0.0
    seconds, start_up = ([result[key] for result in results] for key in ("wall_seconds", "start_up_seconds"))
    steps = statistics.median(result["env_steps"] for result in results)
    passed = sum(good(target, result) for result in results)
    each, wanted = ", ".join(f"{mean:.1f}" for mean in means), f">= {target['mean_return']:g}"
    for metric, least in (target.get("metrics") or {}).items():
        found = ", ".join(f"{result['evaluation']['metrics'][metric]['mean']:.3f}" for result in results)
        each, wanted = f"{each}; {metric} {found}", f"{wanted}, {metric} >= {least:g}"
    return (
        f"| `{name}` | {each} | {statistics.mean(means):.1f} | {spread:.1f} | "
        f"{wanted} in {target['seconds']:g} s | {min(seconds):.0f}-{max(seconds):.0f} | "
        f"{min(start_up):.0f}-{max(start_up):.0f} | {steps:,.0f} | {passed} of {len(results)} |"
    )


def table(report: dict[str, Any]) -> str:
    """Every config of a report."""
    head = "| config | mean return of each seed | mean | s.d. | target | seconds | start-up | env steps | passed |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(row(name, kept) for name, kept in report["configs"].items())])


def main() -> int:
    """Run, keep the raw results, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--configs", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    arguments, settings = parser.parse_known_args()
    report: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"configs": {}}
    if arguments.table:
        print(table(report))
        return 0
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    missing = {
        name: DATA / log for name in arguments.configs if (log := TARGETS[name].log) and not (DATA / log).exists()
    }
    for name, path in missing.items():
        print(f"{name}: left out, {path} is not there", file=sys.stderr)
    chosen = [name for name in arguments.configs if name not in missing]
    for config in chosen:
        made = provenance()
        results = train(config, arguments.seeds, settings)
        kept = {"target": TARGETS[config]._asdict(), "settings": settings, **made, "seeds": results}
        configs = report["configs"] | {config: kept}
        report = {"configs": {name: configs[name] for name in TARGETS if name in configs}}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    measured = {name: report["configs"][name] for name in chosen}
    print(table({"configs": measured}))
    return int(not all(good(kept["target"], result) for kept in measured.values() for result in kept["seeds"]))


if __name__ == "__main__":
    raise SystemExit(main())
