"""`headrace evaluate`: how good the policy of a finished or interrupted run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from actors.environments import make_vector_env
from actors.evaluator import evaluate
from actors.ladder import LadderRow
from actors.seeds import SeedFamily, derive, generator
from actors.vector_steps import VectorSteps
from distributed.build import make_task
from distributed.config import ExperimentConfig
from distributed.driver import BEST_FILE, POLICY_FILE
from distributed.loading import load_experiment
from distributed.run_directory import RunDirectory, read_manifest
from distributed.train import ladder_with, print_ladder
from learners.checkpoint import load_snapshot
from learners.policies import Policy
from replay_server.errors import ConfigError


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
        _record(policy, config, seed, video)
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
    policy.load(load_snapshot(checkpoints[-1] / name, version))
    return policy


def _record(policy: Policy, config: ExperimentConfig, seed: int, path: Path) -> None:
    """One greedy episode as an animated GIF at 30 frames a second."""
    from PIL import Image

    environment = config.environment
    if ":" not in environment.id and "rgb_array" not in gymnasium.spec(environment.id).make().metadata["render_modes"]:
        raise ConfigError(f"--video: {environment.id} cannot draw itself (no render mode rgb_array)")
    import msgspec

    drawn = msgspec.structs.replace(environment, kwargs={**environment.kwargs, "render_mode": "rgb_array"})
    env = make_vector_env(drawn, 1)
    steps = VectorSteps(env)
    observation, rng, frames = steps.reset(seed), generator(seed, "video"), []
    while True:
        frames.append(Image.fromarray(np.asarray(env.render())[0]))
        timestep = steps.step(policy.act(observation, rng, explore=False, env_steps=0).action)
        observation = timestep.observation
        if timestep.terminated[0] or timestep.truncated[0]:
            break
    steps.close()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=33, loop=0)
