"""The command line: finds the command, and turns every error into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import distributed
from distributed import bench_command, commands
from distributed.arguments import Command, parse
from distributed.config_loading import DEFAULT_CONFIG, SHIPPED, install_hint
from replay_server.errors import ConfigError, HeadraceError

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

_NO_NEWS = "worker processes have been started on node"
"""In a warning of Ray's for each few actors beyond the processors, which a run on a laptop has on purpose."""

COMMANDS: dict[str, Command] = {
    "train": commands.TRAIN,
    "evaluate": commands.EVALUATE,
    "collect": commands.COLLECT,
    "serve-replay": commands.SERVE_REPLAY,
    "fit-users": commands.FIT_USERS,
    "status": commands.STATUS,
    "bench": bench_command.BENCH,
    "cluster": commands.CLUSTER,
    "config": commands.CONFIG,
}


def main(argv: Sequence[str]) -> int:
    """Run one command; returns 0 done, 1 failed while running, 2 wrong usage or config. Errors are one line."""
    debug = "--debug" in argv
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _NO_NEWS)  # read when ray is imported
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
    if name not in COMMANDS:
        raise ConfigError(f"{name}: no such command; commands: {', '.join(COMMANDS)} (see headrace --help)")
    command = COMMANDS[name]
    if "--help" in rest or "-h" in rest:
        shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
        print(command.help.format(default=DEFAULT_CONFIG, shipped=shipped), end="")
        return 0
    return command.run(parse(rest, command.grammar))
