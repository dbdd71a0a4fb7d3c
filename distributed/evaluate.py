"""`headrace evaluate`: how good the policy of a finished or interrupted run is."""

from __future__ import annotations

import json
from pathlib import Path

from actors.evaluator import EvaluationResult, evaluate
from actors.ladder import LadderRow
from actors.seeds import SeedFamily, derive
from distributed.build import make_task
from distributed.config import ExperimentConfig
from distributed.config_loading import install_hint
from distributed.driver import BEST_FILE, POLICY_FILE
from distributed.ladder import as_json, draw_ladder, measure_ladder, print_ladder
from distributed.loading import load_experiment
from distributed.manifest import read_manifest
from distributed.run_directory import RunDirectory
from distributed.stages import Stages
from distributed.video import record_episode
from learners.checkpoint import load_snapshot
from learners.policies import Policy
from replay_server.errors import CheckpointError, ConfigError


def evaluate_run(run_dir: Path, *, episodes: int, baselines: bool, video: Path | None, print_json: bool) -> int:
    """Evaluate the best policy of a run's newest checkpoint on the final evaluation's episodes; returns the exit code.

    Args:
        run_dir: the run directory.
        episodes: greedy episodes.
        baselines: also measure the environment's baselines and bounds on the same episodes, and draw `ladder.png` into
            the run directory.
        video: write one episode as an animated GIF.
        print_json: print one JSON object instead of text.
    """
    run = RunDirectory.open(run_dir)
    config = load_experiment(run.config, ()).config
    policy = _load_policy(config, run)
    seed = derive(config.run.seed, family=SeedFamily.FINAL)
    stages = Stages("evaluate")
    with stages.stage(f"playing {episodes:,} episodes of {config.environment.id}"):
        result = evaluate(policy, config.environment, episodes, seed)
    ours = LadderRow.of("ours", result)
    rows = measure_ladder(config, ours, stages, bounds=True) if baselines else []
    if baselines and not rows:
        raise ConfigError(f"--baselines: {config.environment.id} offers none")
    if video is not None:
        with stages.stage("recording an episode"):
            record_episode(policy, config.environment, seed, video)
    if print_json:
        print(json.dumps(result.summary() | ({"ladder": as_json(rows)} if rows else {})))
    else:
        print(f"mean return {ours.mean:.1f} +- {ours.sem:.1f} over {ours.episodes} episodes{_metrics_line(result)}")
        print_ladder(rows, ours)
    if rows:
        _draw(rows, ours, config.environment.id, run.path / "ladder.png", stages)
    if video is not None and not print_json:
        print(f"video: {video}")
    return 0


def _metrics_line(result: EvaluationResult) -> str:
    return "".join(f"; {name} {m.mean:.4g} +- {m.sem:.2g}" for name, m in result.metrics.items())


def _draw(rows: list[LadderRow], ours: LadderRow, title: str, path: Path, stages: Stages) -> None:
    try:
        draw_ladder(rows, ours, title, path)
    except ModuleNotFoundError as error:
        stages.say(f"the ladder is not drawn: matplotlib is not installed; {install_hint(error.name)}")
    else:
        stages.say(f"drawn: {path}")


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
