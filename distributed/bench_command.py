"""`headrace bench`: which benchmark is meant, and which options belong to it."""

from __future__ import annotations

import os
from pathlib import Path

from distributed.arguments import Arguments, Command, Grammar
from distributed.config_loading import DEFAULT_CONFIG
from replay_server.errors import ConfigError

_HELP = """\
headrace bench replay [--json FILE] [--quick] [--rows NAME,...] [--peer NAME=PYTHON ...] [--directory DIR] [--shards N]
headrace bench learner [--json FILE] [--quick] [--rows NAME,...] [--peer NAME=PYTHON ...]
headrace bench broadcast [--json FILE] [--quick] [--peer rllib=PYTHON]
headrace bench scaling [CONFIG] [--simulate] [--actors N,...] [--shards N] [--calibration FILE] [--learner-times X]
                       [--step-seconds X] [--price KIND=PRICE ...] [--SECTION.KEY VALUE ...] [--json FILE] [--quick]
headrace bench table FILE

  replay               measure every row of the replay server's table: about ten minutes, on a machine with nothing
                       else to do; a row that cannot be measured says why
  learner              measure what one update of DQN and TD3 costs beside bare torch and Stable-Baselines3 (peer sb3)
  broadcast            measure how long weights of 0.1 to 100 MB are on their way to 1 to 64 actors, beside RLlib's
                       (peer rllib), and how old they are in two real runs
  scaling [CONFIG]     measure what the parts of a run cost, run it with 1 to 4 actors, and hold a model against that
  --simulate           no real runs: what the model says of 10 to 10,000 actors on a cluster, what holds each size up,
                       what to add, and what it takes (docs/scaling.md)
  --actors N,...       these sizes instead
  --calibration FILE   take what the parts cost from what an earlier `bench scaling --json` of this config wrote
  --learner-times X    predict with a learner X times as fast as the one measured
  --step-seconds X     predict with vector steps of X seconds, for a simulator that you have not got yet
  --SECTION.KEY VALUE  a setting of the config, as for train: --learner.publish_every_updates 1000
  --price KIND=PRICE   of an hour of a node: head, actor or shard; adds the price of 1e9 environment steps
  table FILE           print the table of a file that --json of replay, learner or broadcast wrote, as Markdown
  --json FILE          write the raw figures, with the machine's facts
  --quick              small sizes and short times, to see that everything runs; the figures mean little
  --rows NAME,...      these rows only; * stands for anything, as in grpc-*,shm-sample-8
  --peer NAME=PYTHON   compare with another replay: the interpreter of its environment (see benchmarks/README.md)
  --shards N           replay: compare N shards with one; default: 2. scaling: shards; default: the config's
  --directory DIR      where shards write journals and snapshots; default: the system's place for temporary files
"""
_OPTIONS = {
    "replay": {"json", "rows", "directory", "shards", "peer", "quick"},
    "learner": {"json", "rows", "peer", "quick"},
    "broadcast": {"json", "peer", "quick"},
    "scaling": {
        "json", "shards", "quick", "simulate", "actors", "calibration", "learner-times", "step-seconds", "price",
    },
    "table": set[str](),
}  # fmt: skip


def _bench(arguments: Arguments) -> int:
    name = arguments.positionals[0] if arguments.positionals else ""
    second = len(arguments.positionals) == 2
    if name not in _OPTIONS or (name == "table" and not second) or (name not in ("table", "scaling") and second):
        raise ConfigError(
            "bench: needs `replay`, `learner`, `broadcast`, `scaling [CONFIG]` or `table FILE`, as in headrace bench "
            "replay --quick"
        )
    for option in (*arguments.options, *arguments.switches, *arguments.lists):
        if option not in _OPTIONS[name]:
            owners = " and ".join(f"bench {other}" for other, taken in _OPTIONS.items() if option in taken)
            raise ConfigError(f"--{option}: belongs to {owners}; leave it out of bench {name}")
    if arguments.overrides and name != "scaling":
        raise ConfigError(f"{arguments.overrides[0].flag}: only bench scaling takes settings; leave it out")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines say again what our own errors say
    if name == "table":
        from distributed.bench.tables import table

        print(table(Path(arguments.positionals[1])), end="")
        return 0
    if name == "broadcast":
        return _bench_broadcast(arguments)
    return _bench_scaling(arguments) if name == "scaling" else _bench_rows(name, arguments)


def _bench_broadcast(arguments: Arguments) -> int:
    from distributed.bench.broadcast import PEER, BroadcastBench
    from distributed.bench.peers import peers_from

    peers = peers_from(arguments.lists.get("peer", []))
    if others := sorted(set(peers) - {PEER}):
        raise ConfigError(f"--peer: {others[0]}: has no weights to send; bench broadcast knows {PEER}")
    return BroadcastBench(quick="quick" in arguments.switches, json=arguments.path("json"), peers=peers).run()


def _bench_rows(name: str, arguments: Arguments) -> int:
    from distributed.bench.peers import peers_from
    from distributed.bench.rows import chosen

    patterns = [pattern for pattern in arguments.options.get("rows", "").split(",") if pattern]
    if name == "learner":
        from distributed.bench.learner import LEARNER_ROWS, LearnerBench

        return LearnerBench(
            rows=chosen(patterns, LEARNER_ROWS),
            quick="quick" in arguments.switches,
            json=arguments.path("json"),
            peers=peers_from(arguments.lists.get("peer", [])),
        ).run()
    from distributed.bench.replay import ReplayBench

    shards = arguments.count("shards", 2)
    if shards == 1:
        raise ConfigError("--shards: one shard is what the others are compared with; give 2 or more")
    return ReplayBench(
        rows=chosen(patterns),
        quick="quick" in arguments.switches,
        json=arguments.path("json"),
        directory=arguments.path("directory"),
        peers=peers_from(arguments.lists.get("peer", [])),
        shards=shards,
    ).run()


def _bench_scaling(arguments: Arguments) -> int:
    from distributed.scaling.bench import ScalingBench, positive, prices_from, sizes_from

    options, simulate = arguments.options, "simulate" in arguments.switches
    for option in ("learner-times", "step-seconds", "price"):
        if not simulate and (option in options or option in arguments.lists):
            raise ConfigError(f"--{option}: says something about predictions; add --simulate or leave it out")
    step = options.get("step-seconds")
    return ScalingBench(
        config=(arguments.positionals[1:] or [DEFAULT_CONFIG])[0],
        simulate=simulate,
        actors=sizes_from(options["actors"]) if "actors" in options else (),
        shards=arguments.count("shards", 1) if "shards" in options else None,
        calibration=arguments.path("calibration"),
        learner_times=positive("learner-times", options.get("learner-times", "1")),
        step_s=None if step is None else positive("step-seconds", step),
        prices=prices_from(arguments.lists.get("price", [])),
        settings=tuple(arguments.overrides),
        quick="quick" in arguments.switches,
        json=arguments.path("json"),
    ).run()


BENCH = Command(
    _bench,
    Grammar(
        ("replay | learner | broadcast | scaling | table", "[CONFIG | FILE]"),
        ("json", "rows", "directory", "shards", "actors", "calibration", "learner-times", "step-seconds"),
        ("quick", "simulate"),
        repeated=("peer", "price"),
        settings=True,
    ),
    _HELP,
)
