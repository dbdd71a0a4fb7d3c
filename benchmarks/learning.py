"""What the shipped configs learn: every seed's final evaluation, wall-clock and steps, against a stated threshold.

    python benchmarks/learning.py --json benchmarks/results/learning.json

One `headrace train CONFIG --seeds N` each; exits with 1 when a seed stays below its threshold or over its time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Target(NamedTuple):
    """A mean return to reach on fresh episodes, within so many seconds of training."""

    mean_return: float
    seconds: float


TARGETS = {
    "movie_pick_dqn": Target(330.0, 90.0),
    "cartpole_dqn": Target(475.0, 30.0),
    "lunarlander_dqn": Target(200.0, 180.0),
}


def train(config: str, seeds: int) -> list[dict[str, Any]]:
    """The `result.json` of every seed."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        command = [sys.executable, "-m", "headrace", "train", config, "--seeds", str(seeds), "--run-dir", str(run)]
        subprocess.run(command, cwd=ROOT, check=True)
        results: list[dict[str, Any]] = json.loads((run / "result.json").read_text())["seeds"]
        return results


def main() -> int:
    """Run, print a table, write the raw results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--configs", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version(), "configs": {}}
    failed = False
    lines = ["config           seed  mean return  std error  seconds  start-up  env steps  updates"]
    for config in arguments.configs:
        target, results = TARGETS[config], train(config, arguments.seeds)
        report["configs"][config] = {"target": target._asdict(), "seeds": results}
        for result in results:
            mean = result["evaluation"]["mean"]
            good = mean >= target.mean_return and result["wall_seconds"] <= target.seconds
            failed |= not good
            lines.append(
                f"{config:<16} {result['seed']:>4} {mean:>12.1f} {result['evaluation']['sem']:>10.1f} "
                f"{result['wall_seconds']:>8.1f} {result['start_up_seconds']:>9.1f} {result['env_steps']:>10,} "
                f"{result['updates']:>8,}{'' if good else '  BELOW TARGET'}"
            )
    print("\n".join(lines))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
