"""How old the weights are that actors of a real run act with."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from distributed.bench.broadcast_report import Staleness
from distributed.config_loading import dump_yaml, find_config
from distributed.loading import load_experiment
from distributed.scaling.system import sized
from distributed.stop_signal import StopSignal
from replay_server.errors import WorkerDied

_ENDLESS = 10**12
_START_S = 300.0


def staleness(name: str, actors: int, seconds: float) -> Staleness:
    """A run of a shipped config for so long, without evaluations and checkpoints.

    Raises:
        WorkerDied: it failed.
        ConfigError: the config is wrong.
    """
    config = sized(load_experiment(find_config(name), ()).config, actors, 1)
    run = replace(
        config.run,
        total_env_steps=_ENDLESS,
        max_seconds=seconds,
        stop_at_return=None,
        checkpoint_every_env_steps=0,
    )
    evaluation = replace(config.evaluation, every_env_steps=0, final_episodes=1)
    with tempfile.TemporaryDirectory(prefix="headrace-staleness-") as directory:
        file, run_dir = Path(directory) / "run.yaml", Path(directory) / "run"
        file.write_text(dump_yaml(replace(config, runtime="ray", run=run, evaluation=evaluation)))
        command = [sys.executable, "-m", "headrace", "train", str(file), "--run-dir", str(run_dir)]
        with StopSignal():  # SIGTERM too ends the run with this process
            done = subprocess.run(command, capture_output=True, timeout=_START_S + 4 * seconds, check=False)
        if done.returncode:
            said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise WorkerDied(f"bench broadcast: a run of {name} failed: {said}")
        result = json.loads((run_dir / "result.json").read_text())
    lags = result["staleness"]
    if lags["median"] is None:
        raise WorkerDied(f"bench broadcast: the actors of {name} had no weights within {seconds:g} s")
    return Staleness(
        config=name,
        actors=actors,
        seconds=result["wall_seconds"],
        versions_per_second=result["weights_version"] / result["wall_seconds"],
        env_steps_per_second=result["env_steps_per_second"],
        updates_per_second=result["updates_per_second"],
        median=lags["median"],
        mean=lags["mean"],
        most=lags["max"],
    )
