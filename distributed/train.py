"""`headrace train`: one run, or one for each of several seeds."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from actors.evaluator import Estimate
from actors.ladder import LadderRow
from distributed import preflight
from distributed.config import ExperimentConfig
from distributed.config_loading import dump_yaml
from distributed.driver import Clock, Driver
from distributed.ladder import measure_ladder, print_ladder
from distributed.logged_data import find_log
from distributed.progress import LiveView
from distributed.remote_checkpoints import RemoteCheckpoints
from distributed.run_directory import RunDirectory, is_scheduled, refuse_used
from distributed.runtime import Runtime
from distributed.stages import Stages
from distributed.stop_signal import StopSignal
from learners.checkpoint import write_json
from replay_server.errors import ConfigError


def train(config: ExperimentConfig, *, name: str, run_dir: Path | None, resume: Path | None, seeds: int) -> int:
    """Train, print what came of it and where it lies; returns the exit code.

    Args:
        config: the experiment.
        name: what the run is called, for the default run directory.
        run_dir: a new directory for the run; default a dated one under `run.directory`.
        resume: a run directory to continue from its newest checkpoint.
        seeds: runs to make, with `run.seed`, `run.seed` + 1, ...
    """
    preflight.check(config)
    if resume is None:
        find_log(config)
    with StopSignal() as stop:
        if resume is not None:
            run = RunDirectory.open(resume)
            with run.owned():
                _resume(config, run, stop, name)
            return 0
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        directory = run_dir if run_dir is not None else Path(config.run.directory) / f"{name}-{stamp}"
        if seeds == 1:
            run = _new_run(config, directory)
            with run.owned():
                _report(config, run, _one_run(config, run, stop, name, None), stop)
            return 0
        _several_seeds(config, directory, seeds, stop, name)
    return 0


def _resume(config: ExperimentConfig, run: RunDirectory, stop: StopSignal, name: str) -> None:
    for checkpoint_name in run.clean_up():
        print(f"checkpoint {checkpoint_name} was cut short before it was complete: left out, removed")
    checkpoint = _checkpoint_to_resume(config, run)
    if config.run.checkpoint_url is not None:
        copies = RemoteCheckpoints(config.run.checkpoint_url)
        copies.write_config(dump_yaml(config))
        copies.discard_after(int(checkpoint.name))
    run.write_config(dump_yaml(config))
    _report(config, run, _one_run(config, run, stop, name, checkpoint), stop)


def _new_run(config: ExperimentConfig, directory: Path) -> RunDirectory:
    refuse_used(directory)
    if config.run.checkpoint_url is not None:
        RemoteCheckpoints(config.run.checkpoint_url).create(dump_yaml(config))
    return RunDirectory.create(directory, dump_yaml(config))


def _several_seeds(config: ExperimentConfig, directory: Path, seeds: int, stop: StopSignal, name: str) -> None:
    refuse_used(directory)
    results: list[dict[str, Any]] = []
    for seed in range(config.run.seed, config.run.seed + seeds):
        url = config.run.checkpoint_url and f"{config.run.checkpoint_url}/seed-{seed}"
        part = msgspec.structs.replace(config.run, seed=seed, checkpoint_url=url)
        seeded = msgspec.structs.replace(config, run=part)
        run = _new_run(seeded, directory / f"seed-{seed}")
        with run.owned():
            results.append(_one_run(seeded, run, stop, f"{name} seed {seed}", None))
        print(_summary(results[-1]))
        write_json(directory / "result.json", {"evaluation": _over_seeds(results), "seeds": results})
        if stop.requested:
            break
    if (over := _over_seeds(results)) is not None:
        spread = f"lowest {over['min']:.1f}, highest {over['max']:.1f}"
        print(f"{over['seeds']} seeds: mean return {over['mean']:.1f}, {spread}")
    print(f"run directory: {directory}")


def _over_seeds(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    means = [result["evaluation"]["mean"] for result in results if result["evaluation"] is not None]
    if not means:
        return None
    sem = float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None
    return {"mean": float(np.mean(means)), "sem": sem, "min": min(means), "max": max(means), "seeds": len(means)}


def _one_run(
    config: ExperimentConfig, run: RunDirectory, stop: StopSignal, name: str, checkpoint: Path | None
) -> dict[str, Any]:
    clock = Clock(time.monotonic, time.time)
    with LiveView(name, config.run.total_env_steps, config.run.max_seconds, time.monotonic) as view:
        if checkpoint is not None:
            view.say(f"continuing from {checkpoint}")
        return Driver(config, _make_runtime(config, run), run, view, clock).train(stop, checkpoint)


def _make_runtime(config: ExperimentConfig, run: RunDirectory) -> Runtime:
    if config.runtime == "serial":
        from distributed.serial_runtime import SerialRuntime

        return SerialRuntime(config, run.logs)
    from distributed.ray_runtime import RayRuntime  # only this runtime needs ray

    return RayRuntime(config, run)


def _checkpoint_to_resume(config: ExperimentConfig, run: RunDirectory) -> Path:
    """The newest complete checkpoint; in the serial runtime the newest scheduled one, which continues bit for bit."""
    checkpoints = run.complete_checkpoints()
    if not checkpoints:
        raise ConfigError(f"--resume: {run.path} has no complete checkpoint; start the run anew with train")
    if config.runtime == "serial":
        scheduled = [directory for directory in checkpoints if is_scheduled(directory)]
        if not scheduled:
            print("no scheduled checkpoint: going on from the last one, not bit for bit as without the stop")
        checkpoints = scheduled or checkpoints
    return checkpoints[-1]


def _report(config: ExperimentConfig, run: RunDirectory, result: dict[str, Any], stop: StopSignal) -> None:
    print(_summary(result))
    evaluation = result["evaluation"]
    if evaluation is not None and not stop.requested:
        metrics = {name: Estimate(**estimate) for name, estimate in evaluation.get("metrics", {}).items()}
        ours = LadderRow("ours", evaluation["mean"], evaluation["sem"], evaluation["episodes"], metrics)
        print_ladder(measure_ladder(config, ours, Stages("ladder"), bounds=False), ours)
    print(f"run directory: {run.path}")


def _summary(result: dict[str, Any]) -> str:
    steps = "" if result["offline"] else f"{result['env_steps']:,} env steps and "
    rate = f"{steps}{result['updates']:,} updates in {result['wall_seconds']:.1f} s"
    evaluation = result["evaluation"]
    if evaluation is None:
        return f"stopped ({result['stopped_by']}) after {rate}; no final evaluation"
    return (
        f"mean return {evaluation['mean']:.1f} +- {evaluation['sem']:.1f} over {evaluation['episodes']} fresh "
        f"episodes, after {rate} (start-up {result['start_up_seconds']:.1f} s)"
    )
