"""Where the command `headrace` starts: makes sure that `distributed`, `actors`, ... mean headrace's own packages.

Dask publishes another package called `distributed`, and a user's directory may hold a folder `actors`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder

ROOT = os.path.dirname(os.path.realpath(__file__))
PACKAGES = ("replay_server", "learners", "actors", "distributed")


def main() -> int:
    """Run the command line on `sys.argv`; returns the exit code (0 done, 1 failed while running, 2 wrong usage)."""
    put_first_on_path()
    try:
        check_packages()
    except ImportError as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return 2
    code: int = import_module("distributed.cli").main(sys.argv[1:])
    return code


def put_first_on_path() -> None:
    """Put headrace's own directory first on `sys.path` and the user's directory, for classes named in configs, next."""
    front = _without_repeats([ROOT, os.getcwd()])
    sys.path[:] = front + [entry for entry in sys.path if entry and os.path.realpath(entry) not in front]


def check_packages() -> None:
    """Raise ImportError with what to do when a foreign package won; call it in every process, workers too."""
    for name in PACKAGES:
        package = import_module(name)
        directory = os.path.realpath(os.path.dirname(package.__file__ or next(iter(package.__path__), "")))
        ours = hasattr(package, "HEADRACE_PACKAGE") if name == "distributed" else directory == os.path.join(ROOT, name)
        if not ours:
            raise ImportError(
                f"'{name}' was imported from {directory}, which is not headrace's; "
                f"rename or uninstall that one, or start headrace in an environment without it"
            )


def python_path() -> str:
    """PYTHONPATH for Ray's workers: headrace's directory, the user's, then what PYTHONPATH held.

    Raises:
        ConfigError: the user's directory, which comes first in a worker, holds a package of one of our names.
    """
    here = os.getcwd()
    refuse_hiding(here)
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join(_without_repeats([ROOT, here, *inherited]))


def refuse_hiding(directory: str) -> None:
    """Raise ConfigError when a directory that comes first in a worker holds a foreign package of one of our names."""
    from replay_server.errors import ConfigError  # only now is it certain whose `replay_server` this is

    for name in PACKAGES if not os.path.samefile(directory, ROOT) else ():
        spec = PathFinder.find_spec(name, [directory])
        if spec is not None and spec.origin is not None:
            raise ConfigError(
                f"{spec.origin} would hide headrace's own '{name}' from Ray's workers; "
                "rename it or start from another directory"
            )


def _without_repeats(entries: list[str]) -> list[str]:
    return list(dict.fromkeys(os.path.realpath(entry) for entry in entries))


if __name__ == "__main__":
    raise SystemExit(main())
