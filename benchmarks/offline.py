"""Learning from a log: BCQ and behaviour cloning on what a run of TD3 did, against that run and its behaviour.

    python benchmarks/offline.py --json benchmarks/results/offline.json
    python benchmarks/offline.py --log runs/pendulum_log --json benchmarks/results/offline.json
    python benchmarks/offline.py --table --json benchmarks/results/offline.json

The log is made by one run of `pendulum_td3` that explores boldly and whose replay holds all it did, from its first
random actions on; with `--log` an earlier run's is taken. Its behaviour is the mean return of the episodes it played.
BCQ has to be at least as good as the behaviour and half the gap to TD3's final evaluation, every seed of it; exits with
1 when one is not.
Further arguments are settings of every run. `--table` measures nothing and prints the file as Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from provenance import ROOT, provenance

LOGGER = ["pendulum_td3", "--algorithm.sigma-low", "0.3", "--algorithm.sigma-high", "1.0"]
LEARNERS = {
    "pendulum_bcq": ["pendulum_bcq"],
    "pendulum_cloning": ["pendulum_cloning"],
    "pendulum_cloning_all": ["pendulum_cloning", "--algorithm.reward-quantile", "null"],
}
JUDGED = "pendulum_bcq"


def headrace(arguments: list[str], run: Path) -> dict[str, Any]:
    """The `result.json` of a run."""
    subprocess.run([sys.executable, "-m", "headrace", *arguments, "--run-dir", str(run)], cwd=ROOT, check=True)
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def about(log: Path) -> dict[str, Any]:
    """What a log holds: records, episodes, their mean return, and the final evaluation of who made it."""
    rows = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    played = [(row["episodes"], row["train_return"]) for row in rows if row["episodes"]]
    episodes = sum(count for count, _ in played)
    behaviour = sum(count * mean for count, mean in played) / episodes
    result = json.loads((log / "result.json").read_text())
    if result["replay_size"] < result["env_steps"] - 1_000:  # the last steps' records may not have arrived
        raise SystemExit(f"{log}: holds {result['replay_size']:,} records of {result['env_steps']:,}: raise capacity")
    teacher = result["evaluation"]["mean"]
    return {
        "records": result["replay_size"],
        "episodes": episodes,
        "behaviour": behaviour,
        "teacher": teacher,
        "threshold": behaviour + 0.5 * (teacher - behaviour),
        "seed": result["seed"],
    }


def passes(report: dict[str, Any]) -> bool:
    """Whether every seed of BCQ reached the threshold."""
    least = report["log"]["threshold"]
    return all(result["evaluation"]["mean"] >= least for result in report["configs"][JUDGED]["seeds"])


def table(report: dict[str, Any]) -> str:
    """The log, the threshold and every learner, in Markdown."""
    log = report["log"]
    lines = [
        "| policy | mean return of each seed | mean | s.d. | seconds | updates |",
        "|---|---|---|---|---|---|",
        f"| behaviour: {log['episodes']} logged episodes | | {log['behaviour']:.1f} | | | |",
        f"| threshold: half the way from the behaviour to TD3 | | {log['threshold']:.1f} | | | |",
    ]
    for name, kept in report["configs"].items():
        means = [result["evaluation"]["mean"] for result in kept["seeds"]]
        seconds = [result["wall_seconds"] for result in kept["seeds"]]
        updates = statistics.median(result["updates"] for result in kept["seeds"])
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        lines.append(
            f"| `{name}` | {', '.join(f'{mean:.1f}' for mean in means)} | {statistics.mean(means):.1f} | {spread:.1f} "
            f"| {min(seconds):.0f}-{max(seconds):.0f} | {updates:,.0f} |"
        )
    lines.append(f"| `{LOGGER[0]}`, which made the log | {log['teacher']:.1f} | {log['teacher']:.1f} | | | |")
    return "\n".join(lines)


def measure(arguments: argparse.Namespace, settings: list[str], directory: Path) -> dict[str, Any]:
    """Make the log, unless there is one, and train every learner on it."""
    made = provenance()
    log = arguments.log
    if log is None:
        log = directory / "log"
        headrace(["train", *LOGGER, "--run.seed", str(arguments.log_seed), "--run.max-seconds", "null", *settings], log)
    known = about(log)
    report: dict[str, Any] = {"log": known, **made, "configs": {}}
    for name, config in LEARNERS.items():
        command = ["train", *config, "--replay.init-from", str(log.resolve()), "--seeds", str(arguments.seeds)]
        results = headrace(
            [*command, "--run.seed", str(arguments.first_seed), *settings], directory / str(len(report["configs"]))
        )
        target = {"mean_return": known["threshold"]}
        seeds = results["seeds"] if arguments.seeds > 1 else [results]
        report["configs"][name] = {"target": target, "settings": settings, **made, "seeds": seeds}
    return report


def main() -> int:
    """Run, keep the raw results, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--log-seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    arguments, settings = parser.parse_known_args()
    if arguments.table:
        print(table(json.loads(arguments.json.read_text())))
        return 0
    with tempfile.TemporaryDirectory() as directory:
        report = measure(arguments, settings, Path(directory))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    return int(not passes(report))


if __name__ == "__main__":
    raise SystemExit(main())
