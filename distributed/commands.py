"""The commands but for `bench`: what each takes, says with --help, and does.

torch and ray are imported only by those that need them.
"""

from __future__ import annotations

import os
from pathlib import Path

from distributed.arguments import Arguments, Command, Grammar
from distributed.config_loading import DEFAULT_CONFIG, find_config, load, show
from distributed.raw_config import Override
from replay_server.errors import ConfigError, JournalError, SchemaMismatch

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


TRAIN = Command(_train, Grammar(("[CONFIG]",), ("run-dir", "resume", "seeds"), settings=True), _TRAIN_HELP)

_EVALUATE_HELP = """\
headrace evaluate RUN_DIR [--episodes N] [--baselines] [--video FILE.gif] [--json] [--debug]

  --episodes N      greedy episodes, on the seeds of the final evaluation; default: 100, with --baselines 512
  --baselines       measure the environment's simple policies and bounds on the same episodes; draws RUN_DIR/ladder.png
  --video FILE.gif  write one episode as an animated picture
  --json            print one JSON object
"""


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


EVALUATE = Command(_evaluate, Grammar(("RUN_DIR",), ("episodes", "video"), ("baselines", "json")), _EVALUATE_HELP)

_COLLECT_HELP = """\
headrace collect CONFIG --policy NAME --output DIR [--records N] [--organic] [--section.key VALUE ...] [--debug]

  CONFIG               the config of the run that is to learn from the log: its environment, its records
  --policy NAME        one of the environment's baselines, as the ladder names them
  --output DIR         where replay-0.h5 is written, for replay.init_from
  --records N          how many; default: replay.capacity
  --organic            what users consumed by themselves in place of what they were shown and what came of it
  --section.key VALUE  change one setting, for example --run.seed 1
"""


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


COLLECT = Command(
    _collect, Grammar(("CONFIG",), ("policy", "output", "records"), ("organic",), settings=True), _COLLECT_HELP
)

_SERVE_HELP = """\
headrace serve-replay CONFIG.yaml [--address HOST:PORT] [--insecure] [--salvage] [--debug]

  CONFIG.yaml          the shard: address, spec, capacity, ...
  --address HOST:PORT  serve there instead; port 0 takes any free one
  --insecure           serve other machines without TLS or token: anybody may read and write
  --salvage            leave out what is damaged in the journal, instead of refusing to start
"""


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


SERVE_REPLAY = Command(_serve_replay, Grammar(("CONFIG.yaml",), ("address",), ("insecure", "salvage")), _SERVE_HELP)

_FIT_HELP = """\
headrace fit-users LOG [MODEL] [--liked-from X] [--factors N] [--item-quality true] ... [--debug]

  LOG      a text file of user, item, rating and time, with a header or in this order; may be .gz
  MODEL    where to keep the fitted users; default: LOG.users.npz
  --NAME X how it is fitted: liked-from, least-ratings, held-out-ratings, held-out-users, factors, regularization,
           confidence, iterations, item-quality, seed; docs/environments/log_users.md says what they mean
"""
_FIT_SETTINGS = (
    "liked-from", "least-ratings", "held-out-ratings", "held-out-users", "factors", "regularization", "confidence",
    "iterations", "item-quality", "seed",
)  # fmt: skip


def _fit_users(arguments: Arguments) -> int:
    if not arguments.positionals:
        raise ConfigError("fit-users: needs a log of ratings, as in headrace fit-users ratings.csv")
    from distributed.fit_users import fit

    model = Path(arguments.positionals[1]) if len(arguments.positionals) > 1 else None
    return fit(Path(arguments.positionals[0]), model, arguments.options)


FIT_USERS = Command(_fit_users, Grammar(("LOG", "[MODEL]"), _FIT_SETTINGS), _FIT_HELP)

_STATUS_HELP = """\
headrace status RUN_DIR | HOST:PORT... [--json] [--token-file FILE] [--tls-ca FILE] [--debug]

  RUN_DIR                 a run, that goes on or has ended; with a token its shards are asked too
  HOST:PORT               a replay shard
  --json                  print one JSON object
  --token-file FILE       the shards' token; default: HEADRACE_TOKEN
  --tls-ca FILE           the shards speak TLS, with a certificate signed by this authority
  --tls-certificate FILE  our own certificate, for shards that ask for one, and with --tls-key its key
"""


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


STATUS = Command(
    _status,
    Grammar(("RUN_DIR | HOST:PORT...",), ("token-file", "tls-ca", "tls-certificate", "tls-key"), ("json",)),
    _STATUS_HELP,
)

_CLUSTER_HELP = """\
headrace cluster check [FILE...] [--debug]

  FILE...  files for `ray up` and manifests for KubeRay; default: cluster.yaml. Ray's validation or KubeRay's schema,
           then what these skip: pins, file mounts, start commands, tokens, keys, sizes, room for learner, shards and
           actors. One line a mistake, exit code 2.
"""


def _cluster(arguments: Arguments) -> int:
    if arguments.positionals[:1] != ["check"]:
        raise ConfigError("cluster: needs `check`, as in headrace cluster check [FILE...]")
    from distributed.cluster.check import check_files

    return check_files([Path(name) for name in arguments.positionals[1:] or ["cluster.yaml"]])


CLUSTER = Command(_cluster, Grammar(("check", "[FILE...]...")), _CLUSTER_HELP)

_CONFIG_HELP = """\
headrace config show [CONFIG] [--section.key VALUE ...]

  Prints the complete config as YAML; a comment at each value says where it comes from and what it means.
"""


def _config(arguments: Arguments) -> int:
    if arguments.positionals[:1] != ["show"]:
        raise ConfigError("config: needs `show`, as in headrace config show [CONFIG]")
    from distributed.loading import load_experiment

    path = find_config((arguments.positionals[1:] or [DEFAULT_CONFIG])[0])
    print(show(load_experiment(path, arguments.overrides)), end="")
    return 0


CONFIG = Command(_config, Grammar(("show", "[CONFIG]"), settings=True), _CONFIG_HELP)
