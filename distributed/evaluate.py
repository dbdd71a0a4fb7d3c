"""`headrace evaluate`: how good the policy of a finished or interrupted run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actors.evaluator import evaluate
from actors.ladder import LadderRow
from actors.seeds import SeedFamily, derive
from distributed.build import make_task
from distributed.config import ExperimentConfig
from distributed.driver import BEST_FILE, POLICY_FILE
from distributed.loading import load_experiment
from distributed.run_directory import RunDirectory, read_manifest
from distributed.train import ladder_with, print_ladder
from distributed.video import record_episode
from learners.checkpoint import load_snapshot
from learners.policies import Policy
from replay_server.errors import CheckpointError, ConfigError


def evaluate_run(run_dir: Path, *, episodes: int, baselines: bool, video: Path | None, as_json: bool) -> int:
    """Evaluate the best policy of a run's newest checkpoint on the final evaluation's episodes; returns the exit code.

    Args:
        run_dir: the run directory.
        episodes: greedy episodes.
        baselines: also measure the environment's baselines on the same episodes.
        video: write one episode as an animated GIF.
        as_json: print one JSON object instead of text.
    """
    run = RunDirectory.open(run_dir)
    config = load_experiment(run.config, ()).config
    policy = _load_policy(config, run)
    seed = derive(config.run.seed, family=SeedFamily.FINAL)
    result = evaluate(policy, config.environment, episodes, seed)
    ours = LadderRow("ours", result.mean, result.sem, result.episodes)
    rows = ladder_with(config, ours) if baselines else []
    if baselines and not rows:
        raise ConfigError(f"--baselines: {config.environment.id} offers none")
    if video is not None:
        record_episode(policy, config.environment, seed, video)
    if as_json:
        document: dict[str, Any] = {"mean": ours.mean, "sem": ours.sem, "episodes": ours.episodes}
        if rows:
            document["ladder"] = [{"name": r.name, "mean": r.mean, "sem": r.sem, "episodes": r.episodes} for r in rows]
        print(json.dumps(document))
        return 0
    print(f"mean return {ours.mean:.1f} +- {ours.sem:.1f} over {ours.episodes} episodes")
    print_ladder(rows)
    if video is not None:
        print(f"video: {video}")
    return 0


def _load_policy(config: ExperimentConfig, run: RunDirectory) -> Policy:
    checkpoints = run.complete_checkpoints()
    if not checkpoints:
        raise ConfigError(f"{run.path} has no complete checkpoint yet")
    manifest = read_manifest(checkpoints[-1])
    best = manifest["best"]
    name, version = (POLICY_FILE, manifest["policy_version"]) if best is None else (BEST_FILE, best["version"])
    policy: Policy = config.algorithm.make_policy(make_task(config), env_indices=range(1), total_envs=1)
    try:
        policy.load(load_snapshot(checkpoints[-1] / name, version))
    except RuntimeError as error:  # torch's way of saying that names or shapes differ
        raise CheckpointError(
            f"{checkpoints[-1] / name}: weights of another network than {run.config} describes"
        ) from error
    return policy
