"""Time and environment steps to a stated return: headrace beside Stable-Baselines3 and tianshou.

    python benchmarks/side_by_side.py --json benchmarks/results/side_by_side.json \\
        --peer sb3=peers/sb3/bin/python --peer tianshou=peers/tianshou/bin/python

"Solved" is, for everyone, the first periodic evaluation (20 greedy episodes) whose mean return reaches the threshold;
its time is the seconds of training until the evaluated policy existed, start-up apart. Peers evaluate between two steps
of training and the clock stands still meanwhile; ours evaluates in a process of its own while training goes on, which
costs it some of the machine, and passes an evaluation over while the one before is under way. Peers compute with
`--threads` threads, ours in processes of one each. Systems take turns seed by seed, so that whatever else the machine
does meets all of them.

Peers run with their own tuned settings and, as `sb3-same-net`, with our network's hidden layers instead of theirs. What
is measured takes the place of earlier figures of the same task and system. `--table` measures nothing and prints the
file as Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from provenance import ROOT, provenance

from distributed.config_loading import find_config
from distributed.loading import load_experiment


class Task(NamedTuple):
    """What is learnt: our config, returns to reach (the run ends at the last), steps between evaluations, the limit."""

    config: str
    environment: str
    kwargs: dict[str, Any]
    thresholds: tuple[float, ...]
    every_env_steps: int
    seconds: float


TASKS = {
    "CartPole-v1": Task("cartpole_dqn", "CartPole-v1", {}, (475.0,), 2_000, 60.0),
    "LunarLander-v3": Task("lunarlander_dqn", "LunarLander-v3", {}, (200.0, 220.0), 10_000, 300.0),
    "Pendulum-v1": Task("pendulum_td3", "Pendulum-v1", {}, (-200.0,), 1_000, 120.0),
    "LunarLander-v3 continuous": Task(
        "lunarlander_continuous_td3", "LunarLander-v3", {"continuous": True}, (200.0,), 10_000, 450.0
    ),
}
SYSTEMS = ("headrace", "sb3", "sb3-same-net", "tianshou")
EPISODES = 20
GRACE_SECONDS = 240.0


def ours(task: Task, seconds: float, seed: int) -> dict[str, Any]:
    """One run of `headrace train`, ended by its threshold, its own length or the limit."""
    settings = {
        "run.seed": seed,
        "run.max-seconds": seconds,
        "run.stop-at-return": task.thresholds[-1],
        "evaluation.episodes": EPISODES,
        "evaluation.every-env-steps": task.every_env_steps,
        "evaluation.final-episodes": 2,
    }
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        command = [sys.executable, "-m", "headrace", "train", task.config, "--run-dir", str(run)]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=seconds + GRACE_SECONDS)
        result = json.loads((run / "result.json").read_text())
    return {
        "seconds": result["wall_seconds"],
        "start_up_seconds": result["start_up_seconds"],
        "env_steps": result["env_steps"],
        "updates": result["updates"],
        "evaluations": result["periodic_evaluations"],
    }


def theirs(program: list[str], name: str, **work: Any) -> dict[str, Any]:
    """One run of a peer's program on a named task; `work` holds `seconds`, `seed`, `hidden_sizes` and `threads`."""
    task = TASKS[name]
    work |= {
        "task": name,
        "environment": task.environment,
        "kwargs": task.kwargs,
        "thresholds": task.thresholds,
        "every_env_steps": task.every_env_steps,
        "episodes": EPISODES,
        "started": time.time(),
    }
    limit = 10 * work["seconds"] + GRACE_SECONDS  # evaluations are not in its seconds
    done = subprocess.run([*program, json.dumps(work)], capture_output=True, text=True, timeout=limit)
    lines = done.stdout.splitlines()
    outcome: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": done.stderr[-300:]}
    return outcome


def solved(run: dict[str, Any], threshold: float) -> dict[str, Any] | None:
    """The first periodic evaluation at a threshold."""
    ordered = sorted(run.get("evaluations", []), key=lambda evaluation: evaluation["env_steps"])
    return next((evaluation for evaluation in ordered if evaluation["mean"] >= threshold), None)


def median_to(runs: list[dict[str, Any]], threshold: float, key: str) -> float:
    """Median over runs of `seconds` or `env_steps` to a threshold; infinite when half of them never got there."""
    reached = [solved(run, threshold) for run in runs]
    return statistics.median_high([float("inf") if at is None else at[key] for at in reached])


def row(name: str, threshold: float, kept: dict[str, Any], system: str) -> str:
    """One line of the table, in Markdown."""
    runs, limit = kept["systems"][system]["runs"], kept["systems"][system]["limit_seconds"]
    good = [run for run in runs if "error" not in run]
    if not good:
        return f"| {name} >= {threshold:g} | {system} | failed: {runs[0]['error']} | | | | | |"
    each = [solved(run, threshold) for run in good]
    texts = ["-" if at is None else f"{at['seconds']:.1f}" for at in each]
    median, steps = median_to(good, threshold, "seconds"), median_to(good, threshold, "env_steps")
    base = median_to(kept["systems"].get("headrace", {"runs": good})["runs"], threshold, "seconds")
    best = max((evaluation["mean"] for run in good for evaluation in run["evaluations"]), default=float("nan"))
    if median == float("inf"):
        share, text, step_text = "-", f"not within {limit:g} s (best {best:.0f})", "-"
    else:
        share = "-" if base == float("inf") else f"{median / base:.2f} x"
        text, step_text = f"{median:.1f}", f"{steps:,.0f}"
    rate = statistics.median(run["env_steps"] / run["seconds"] for run in good)
    start = statistics.median(run["start_up_seconds"] for run in good)
    cells = [f"{name} >= {threshold:g}", system, ", ".join(texts), text, share, step_text]
    return "| " + " | ".join([*cells, f"{rate:,.0f}", f"{start:.1f}"]) + " |"


def table(report: dict[str, Any]) -> str:
    """Every task, threshold and system of a report."""
    head = "| task | system | seconds to it, each seed | median | of ours | env steps | env steps/s | start-up s |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for name, kept in report["tasks"].items():
        for threshold in kept["thresholds"]:
            lines += [row(name, threshold, kept, system) for system in SYSTEMS if system in kept["systems"]]
    return "\n".join(lines)


def measure(
    name: str, systems: dict[str, list[str]], seeds: range, seconds: float, threads: int
) -> dict[str, dict[str, Any]]:
    """Runs of every system, taking turns seed by seed."""
    task = TASKS[name]
    algorithm: Any = load_experiment(find_config(task.config), ()).config.algorithm
    made, net = provenance(), list(algorithm.hidden_sizes)
    kept: dict[str, Any] = {
        system: {**made, "limit_seconds": seconds, "threads": threads, "runs": []} for system in systems
    }
    for seed in seeds:
        for system, program in systems.items():
            if system == "headrace":
                run = ours(task, seconds, seed)
            else:
                sizes = net if system.endswith("same-net") else None
                run = theirs(program, name, seconds=seconds, seed=seed, hidden_sizes=sizes, threads=threads)
            kept[system]["runs"].append({"seed": seed, **run})
            at = solved(run, task.thresholds[-1])
            outcome = run.get("error") or (f"{at['seconds']:.1f} s" if at else f"not solved in {run['seconds']:.1f} s")
            print(f"{name}, {system}, seed {seed}: {outcome}", flush=True)
    return kept


def main() -> None:
    """Measure what is asked for, keep the raw results, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="a peer's interpreter")
    parser.add_argument("--seconds", type=float, help="another limit for every run")
    parser.add_argument("--threads", type=int, default=1, help="threads of a peer's torch")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"tasks": {}}
    if arguments.table:
        print(table(report))
        return
    pythons = dict(peer.split("=", 1) for peer in arguments.peer)
    systems: dict[str, list[str]] = {}
    for system in arguments.systems:
        peer = system.removesuffix("-same-net")
        if system == "headrace":
            systems[system] = []
        elif peer in pythons:
            systems[system] = [pythons[peer], str(ROOT / "benchmarks" / "peers" / f"{peer}_learning.py")]
        else:
            print(f"{system}: left out, no --peer {peer}=PYTHON")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.tasks:
        task = TASKS[name]
        kept = report["tasks"].setdefault(name, {"systems": {}})
        kept |= {"config": task.config, "thresholds": task.thresholds, "every_env_steps": task.every_env_steps}
        kept["systems"] |= measure(name, systems, seeds, arguments.seconds or task.seconds, arguments.threads)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table({"tasks": {name: report["tasks"][name] for name in arguments.tasks}}))


if __name__ == "__main__":
    main()
