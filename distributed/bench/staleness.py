"""How old the weights are that actors of a real run act with."""

from __future__ import annotations

import json

from msgspec.structs import replace

from distributed.bench.broadcast_report import Staleness
from distributed.child_run import ENDLESS, child_run
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.scaling.system import sized
from replay_server.errors import WorkerDied

_START_S = 300.0


def staleness(name: str, actors: int, seconds: float) -> Staleness:
    """A run of a shipped config for so long, without evaluations and checkpoints.

    Raises:
        WorkerDied: it failed, took minutes too long, or its actors had no weights.
        ConfigError: the config is wrong.
    """
    config = sized(load_experiment(find_config(name), ()).config, actors, 1)
    run = replace(config.run, total_env_steps=ENDLESS)
    with child_run(replace(config, run=run), seconds) as child:
        child.wait(_START_S + 4 * seconds)
        result = json.loads(child.files.result.read_text())
    lags = result["staleness"]
    if lags["median"] is None:
        raise WorkerDied(f"the actors of {name} had no weights within {seconds:g} s")
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
