"""The command line: one function a command. torch and ray are imported only by the commands that need them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import distributed
from distributed.arguments import Arguments, Grammar, parse
from distributed.config_loading import SHIPPED, find_config, install_hint, load, show
from distributed.raw_config import Override
from replay_server.errors import ConfigError, HeadraceError, JournalError, SchemaMismatch

DEFAULT_CONFIG = "movie_pick_dqn"

_HELP = """\
headrace trains reinforcement learning policies with many actors, sharded replay and one learner.

  headrace train [CONFIG] [--section.key VALUE ...]     train; without CONFIG a recommender on simulated users
  headrace evaluate RUN_DIR                             how good the policy of a run is
  headrace collect CONFIG --policy NAME --output DIR    a log of what a simple policy did, to learn from
  headrace serve-replay CONFIG.yaml                     a stand-alone replay shard
  headrace fit-users LOG [MODEL]                        simulated users from a log of ratings
  headrace status RUN_DIR | HOST:PORT...                how runs and shards are, and who waits for what
  headrace bench replay | learner | broadcast | scaling how fast replay, updates, weights and whole runs are
  headrace config show [CONFIG]                         the complete config, with the source of each value
  headrace cluster check [FILE...]                      what is wrong with cluster.yaml, before machines cost money

headrace COMMAND --help says more; --version prints the version; --debug adds tracebacks to errors.
"""
_TRAIN_HELP = """\
headrace train [CONFIG] [--section.key VALUE ...] [--run-dir DIR] [--resume DIR] [--seeds N] [--debug]

  CONFIG               a YAML file or the name of a shipped config; default: {default}
                       shipped: {shipped}
  --section.key VALUE  change one setting, for example --algorithm.learning-rate 3e-4 or --runtime serial
  --run-dir DIR        where to write; default: a new directory under run.directory
  --resume DIR         continue the run in DIR from its newest checkpoint; or --resume URL --run-dir DIR, the one that
                       run.checkpoint_url left there, in a new directory
  --seeds N            train N times with run.seed, run.seed + 1, ... and sum up
"""
_EVALUATE_HELP = """\
headrace evaluate RUN_DIR [--episodes N] [--baselines] [--video FILE.gif] [--json] [--debug]

  --episodes N      greedy episodes, on the seeds of the final evaluation; default: 100, with --baselines 512
  --baselines       measure the environment's simple policies and bounds on the same episodes; draws RUN_DIR/ladder.png
  --video FILE.gif  write one episode as an animated picture
  --json            print one JSON object
"""
_COLLECT_HELP = """\
headrace collect CONFIG --policy NAME --output DIR [--records N] [--organic] [--section.key VALUE ...] [--debug]

  CONFIG               the config of the run that is to learn from the log: its environment, its records
  --policy NAME        one of the environment's baselines, as the ladder names them
  --output DIR         where replay-0.h5 is written, for replay.init_from
  --records N          how many; default: replay.capacity
  --organic            what users consumed by themselves in place of what they were shown and what came of it
  --section.key VALUE  change one setting, for example --run.seed 1
"""
_SERVE_HELP = """\
headrace serve-replay CONFIG.yaml [--address HOST:PORT] [--insecure] [--salvage] [--debug]

  CONFIG.yaml          the shard: address, spec, capacity, ...
  --address HOST:PORT  serve there instead; port 0 takes any free one
  --insecure           serve other machines without TLS or token: anybody may read and write
  --salvage            leave out what is damaged in the journal, instead of refusing to start
"""
_FIT_HELP = """\
headrace fit-users LOG [MODEL] [--liked-from X] [--factors N] [--item-quality true] ... [--debug]

  LOG      a text file of user, item, rating and time, with a header or in this order; may be .gz
  MODEL    where to keep the fitted users; default: LOG.users.npz
  --NAME X how it is fitted: liked-from, least-ratings, held-out-ratings, held-out-users, factors, regularization,
           confidence, iterations, item-quality, seed; docs/environments/log_users.md says what they mean
"""
_STATUS_HELP = """\
headrace status RUN_DIR | HOST:PORT... [--json] [--token-file FILE] [--tls-ca FILE] [--debug]

  RUN_DIR                 a run, that goes on or has ended; with a token its shards are asked too
  HOST:PORT               a replay shard
  --json                  print one JSON object
  --token-file FILE       the shards' token; default: HEADRACE_TOKEN
  --tls-ca FILE           the shards speak TLS, with a certificate signed by this authority
  --tls-certificate FILE  our own certificate, for shards that ask for one, and with --tls-key its key
"""
_BENCH_HELP = """\
headrace bench replay [--json FILE] [--quick] [--rows NAME,...] [--peer NAME=PYTHON ...] [--directory DIR] [--shards N]
headrace bench learner [--json FILE] [--quick] [--rows NAME,...] [--peer NAME=PYTHON ...]
headrace bench broadcast [--json FILE] [--quick] [--peer rllib=PYTHON]
headrace bench scaling [CONFIG] [--simulate] [--actors N,...] [--shards N] [--calibration FILE] [--learner-times X]
                       [--step-seconds X] [--price KIND=PRICE ...] [--json FILE] [--quick]
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
  --price KIND=PRICE   of an hour of a node: head, actor or shard; adds the price of 1e9 environment steps
  table FILE           print the table of a file that --json of replay, learner or broadcast wrote, as Markdown
  --json FILE          write the raw figures, with the machine's facts
  --quick              small sizes and short times, to see that everything runs; the figures mean little
  --rows NAME,...      these rows only; * stands for anything, as in grpc-*,shm-sample-8
  --peer NAME=PYTHON   compare with another replay: the interpreter of its environment (see benchmarks/README.md)
  --shards N           replay: compare N shards with one; default: 2. scaling: shards; default: the config's
  --directory DIR      where shards write journals and snapshots; default: the system's place for temporary files
"""
_CONFIG_HELP = """\
headrace config show [CONFIG] [--section.key VALUE ...]

  Prints the complete config as YAML; a comment at each value says where it comes from and what it means.
"""
_CLUSTER_HELP = """\
headrace cluster check [FILE...] [--debug]

  FILE...  files for `ray up` and manifests for KubeRay; default: cluster.yaml. Ray's validation or KubeRay's schema,
           then what these skip: pins, file mounts, start commands, tokens, keys, sizes, room for learner, shards and
           actors. One line a mistake, exit code 2.
"""


_FIT_SETTINGS = (
    "liked-from", "least-ratings", "held-out-ratings", "held-out-users", "factors", "regularization", "confidence",
    "iterations", "item-quality", "seed",
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run one command; returns 0 done, 1 failed while running, 2 wrong usage or config. Errors are one line."""
    debug = "--debug" in argv
    try:
        code = _run([token for token in argv if token != "--debug"])
        sys.stdout.flush()
        return code
    except ConfigError as error:
        return _fail(str(error), 2, debug)
    except HeadraceError as error:
        return _fail(str(error), 1, debug)
    except KeyboardInterrupt:
        return _fail("interrupted before an orderly stop", 1, debug)
    except BrokenPipeError:  # the reader of our output, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        remedy = install_hint(error.name)
        return _fail(f"this command needs the module {error.name}, which is not installed; {remedy}", 2, debug)
    except Exception as error:  # a mistake of ours or of a user's class; the user decides whether to look closer
        hint = "" if debug else "; run again with --debug for the traceback"
        return _fail(f"unexpected {type(error).__name__}: {error}{hint}", 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"headrace: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(_HELP, end="")
        return 0
    if argv[0] == "--version":
        print(f"headrace {distributed.__version__}")
        return 0
    name, *rest = argv
    if name not in _COMMANDS:
        raise ConfigError(f"{name}: no such command; commands: {', '.join(_COMMANDS)} (see headrace --help)")
    command, grammar, text = _COMMANDS[name]
    if "--help" in rest or "-h" in rest:
        shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
        print(text.format(default=DEFAULT_CONFIG, shipped=shipped), end="")
        return 0
    return command(parse(rest, grammar))


def _train(arguments: Arguments) -> int:
    from distributed.loading import load_experiment
    from distributed.run_directory import RunDirectory
    from distributed.train import train

    resume, run_dir = arguments.path("resume"), arguments.path("run-dir")
    if resume is not None and "://" in arguments.options["resume"]:
        resume = _fetched(arguments)
        run_dir = None
    if resume is None:
        path = find_config(arguments.positionals[0] if arguments.positionals else DEFAULT_CONFIG)
        name = path.stem
    else:
        extra = arguments.positionals + [
            f"--{option}" for option in ("run-dir", "seeds") if option in arguments.options
        ]
        if extra:
            raise ConfigError(f"--resume: contradicts {extra[0]}; a resumed run keeps its own config and directory")
        path, name = RunDirectory.open(resume).config, resume.resolve().name
    config = load_experiment(path, arguments.overrides).config
    return train(config, name=name, run_dir=run_dir, resume=resume, seeds=arguments.count("seeds", 1))


def _fetched(arguments: Arguments) -> Path:
    """The run at a URL, as a run directory of this machine from here on."""
    from distributed.remote_checkpoints import RemoteCheckpoints

    url, run_dir = arguments.options["resume"], arguments.options.pop("run-dir", None)
    if run_dir is None:
        raise ConfigError(f"--resume: {url} needs --run-dir DIR too, a new directory to go on in")
    return RemoteCheckpoints(url).fetch(Path(run_dir)).path


def _evaluate(arguments: Arguments) -> int:
    if not arguments.positionals:
        raise ConfigError("evaluate: needs a run directory, as in headrace evaluate RUN_DIR")
    from distributed.evaluate import evaluate_run

    return evaluate_run(
        Path(arguments.positionals[0]),
        episodes=arguments.count("episodes", 512 if "baselines" in arguments.switches else 100),
        baselines="baselines" in arguments.switches,
        video=arguments.path("video"),
        print_json="json" in arguments.switches,
    )


def _collect(arguments: Arguments) -> int:
    for option in ("policy", "output"):
        if option not in arguments.options:
            raise ConfigError(f"collect: needs --{option}, as in headrace collect CONFIG --policy random --output DIR")
    from distributed.collect import collect
    from distributed.loading import load_experiment

    config = load_experiment(find_config((arguments.positionals or [DEFAULT_CONFIG])[0]), arguments.overrides).config
    records, output = arguments.count("records", config.replay.capacity), Path(arguments.options["output"])
    policy, organic = arguments.options["policy"], "organic" in arguments.switches
    mean = collect(config, policy, records, output, organic=organic)
    what = "consumed by users themselves" if organic else f"of {policy}"
    print(f"{output}: {records:,} records {what}, mean reward {mean:.4f}")
    return 0


def _serve_replay(arguments: Arguments) -> int:
    if not arguments.positionals:
        raise ConfigError("serve-replay: needs a shard's config, as in headrace serve-replay CONFIG.yaml")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log lines say again what our own errors say
    from replay_server.serving import serve
    from replay_server.shard_config import ShardConfig

    path = Path(arguments.positionals[0])
    address = arguments.options.get("address")
    config = load(ShardConfig, path, [] if address is None else [Override(("address",), address)]).config
    try:
        config.spec.to_spec()
    except SchemaMismatch as error:
        raise ConfigError(f"{path}: spec: {error}") from error
    try:
        serve(config, insecure="insecure" in arguments.switches, salvage="salvage" in arguments.switches)
    except JournalError as error:
        raise ConfigError(str(error)) from error
    return 0


def _fit_users(arguments: Arguments) -> int:
    if not arguments.positionals:
        raise ConfigError("fit-users: needs a log of ratings, as in headrace fit-users ratings.csv")
    from distributed.fit_users import fit

    model = Path(arguments.positionals[1]) if len(arguments.positionals) > 1 else None
    return fit(Path(arguments.positionals[0]), model, arguments.options)


def _status(arguments: Arguments) -> int:
    if not arguments.positionals:
        raise ConfigError(
            "status: needs a run directory or the address of a replay shard, as in headrace status RUN_DIR"
        )
    from distributed.status import show_status
    from replay_server.security import TLS

    files = [arguments.options.get(name) for name in ("tls-ca", "tls-certificate", "tls-key")]
    return show_status(
        arguments.positionals,
        as_json="json" in arguments.switches,
        token_file=arguments.options.get("token-file"),
        tls=TLS(*files) if any(files) else None,
    )


def _config(arguments: Arguments) -> int:
    if arguments.positionals[:1] != ["show"]:
        raise ConfigError("config: needs `show`, as in headrace config show [CONFIG]")
    from distributed.loading import load_experiment

    path = find_config((arguments.positionals[1:] or [DEFAULT_CONFIG])[0])
    print(show(load_experiment(path, arguments.overrides)), end="")
    return 0


def _cluster(arguments: Arguments) -> int:
    if arguments.positionals[:1] != ["check"]:
        raise ConfigError("cluster: needs `check`, as in headrace cluster check [FILE...]")
    from distributed.cluster.check import check_files

    return check_files([Path(name) for name in arguments.positionals[1:] or ["cluster.yaml"]])


_BENCH_OPTIONS = {
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
    if name not in _BENCH_OPTIONS or (name == "table" and not second) or (name not in ("table", "scaling") and second):
        raise ConfigError(
            "bench: needs `replay`, `learner`, `broadcast`, `scaling [CONFIG]` or `table FILE`, as in headrace bench "
            "replay --quick"
        )
    for option in (*arguments.options, *arguments.switches, *arguments.lists):
        if option not in _BENCH_OPTIONS[name]:
            owners = " and ".join(f"bench {other}" for other, taken in _BENCH_OPTIONS.items() if option in taken)
            raise ConfigError(f"--{option}: belongs to {owners}; leave it out of bench {name}")
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
        quick="quick" in arguments.switches,
        json=arguments.path("json"),
    ).run()


_COMMANDS: dict[str, tuple[Callable[[Arguments], int], Grammar, str]] = {
    "train": (_train, Grammar(("[CONFIG]",), ("run-dir", "resume", "seeds"), (), settings=True), _TRAIN_HELP),
    "evaluate": (_evaluate, Grammar(("RUN_DIR",), ("episodes", "video"), ("baselines", "json")), _EVALUATE_HELP),
    "collect": (
        _collect,
        Grammar(("CONFIG",), ("policy", "output", "records"), ("organic",), settings=True),
        _COLLECT_HELP,
    ),
    "serve-replay": (_serve_replay, Grammar(("CONFIG.yaml",), ("address",), ("insecure", "salvage")), _SERVE_HELP),
    "fit-users": (_fit_users, Grammar(("LOG", "[MODEL]"), _FIT_SETTINGS), _FIT_HELP),
    "status": (
        _status,
        Grammar(("RUN_DIR | HOST:PORT...",), ("token-file", "tls-ca", "tls-certificate", "tls-key"), ("json",)),
        _STATUS_HELP,
    ),
    "bench": (
        _bench,
        Grammar(
            ("replay | learner | broadcast | scaling | table", "[CONFIG | FILE]"),
            ("json", "rows", "directory", "shards", "actors", "calibration", "learner-times", "step-seconds"),
            ("quick", "simulate"),
            repeated=("peer", "price"),
        ),
        _BENCH_HELP,
    ),
    "cluster": (_cluster, Grammar(("check", "[FILE...]...")), _CLUSTER_HELP),
    "config": (_config, Grammar(("show", "[CONFIG]"), settings=True), _CONFIG_HELP),
}
