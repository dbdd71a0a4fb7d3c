"""End-to-end throughput: environment steps a second with learning, beside what the environment alone can do.

    python benchmarks/end_to_end.py --seconds 30 --runs 3 --json benchmarks/results/end_to_end.json

Runs each shipped config under Ray for a fixed time without evaluation, alternating with the bare environment (random
actions, the actor's own vector size, one process), and reports medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from actors.environments import make_vector_env  # noqa: E402
from actors.vector_steps import VectorSteps  # noqa: E402
from distributed.config_loading import find_config  # noqa: E402
from distributed.loading import load_experiment  # noqa: E402

CONFIGS = ("movie_pick_dqn", "lunarlander_dqn")


def bare_environment(name: str, seconds: float) -> float:
    """Steps a second of one actor's environments with random actions and nothing else."""
    environment = load_experiment(find_config(name), ()).config.environment
    env = make_vector_env(environment)
    steps = VectorSteps(env)
    steps.reset(0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    for action in actions:
        steps.step(action)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        steps.step(actions[count % len(actions)])
        count += 1
    return count * environment.num_envs / (time.perf_counter() - begin)


def with_learning(name: str, seconds: float) -> dict[str, Any]:
    """`result.json` of a run of so many seconds."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        arguments = ["train", name, "--run-dir", str(run), "--run.max-seconds", str(seconds)]
        arguments += ["--run.total-env-steps", "1e12", "--evaluation.every-env-steps", "0"]
        arguments += ["--evaluation.final-episodes", "2"]
        subprocess.run([sys.executable, "-m", "headrace", *arguments], cwd=ROOT, check=True, capture_output=True)
        result: dict[str, Any] = json.loads((run / "result.json").read_text())
        result["last_row"] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        return result


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version(), "configs": {}}
    print("config            bare env steps/s  with learning/s  share  updates/s  bound by")
    for name in CONFIGS:
        pairs = []
        for _ in range(arguments.runs):
            pairs.append({"bare": bare_environment(name, 5.0), "run": with_learning(name, arguments.seconds)})
        bare = statistics.median(pair["bare"] for pair in pairs)
        learning = statistics.median(pair["run"]["env_steps_per_second"] for pair in pairs)
        share = statistics.median(pair["run"]["env_steps_per_second"] / pair["bare"] for pair in pairs)
        updates = statistics.median(pair["run"]["updates_per_second"] for pair in pairs)
        bound = pairs[-1]["run"]["last_row"]["time"]["bound_by"]
        print(f"{name:<17} {bare:>16,.0f} {learning:>16,.0f} {share:>6.2f} {updates:>10,.0f}  {bound}", flush=True)
        report["configs"][name] = {
            "bare_env_steps_per_second": bare,
            "env_steps_per_second": learning,
            "share_of_bare": share,
            "updates_per_second": updates,
            "pairs": pairs,
        }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
