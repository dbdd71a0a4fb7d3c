"""`headrace cluster check`: what is wrong with launcher files and KubeRay manifests, one line a mistake."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distributed.cluster import launcher_file, roles
from distributed.cluster.launcher_rules import check_launcher, offers
from distributed.cluster.manifests import check_manifests
from distributed.cluster.problem import Problem
from replay_server.errors import ConfigError


def check_files(paths: Sequence[Path]) -> int:
    """Check files and say what was found.

    Returns:
        0 nothing is wrong, 2 something is; every mistake is one line on the standard error.

    Raises:
        ConfigError: a file cannot be read, or the Ray that runs is not the one whose validation is known.
    """
    found = 0
    for path in paths:
        problems, summary = check(path)
        for problem in problems:
            print(f"headrace: error: {path}: {problem.field}: {' '.join(problem.text.split())}", file=sys.stderr)
        if not problems:
            print(f"{path}: {summary}")
        found += len(problems)
    return 2 if found else 0


def check(path: Path) -> tuple[list[Problem], str]:
    """Everything that is wrong with one file, and a line on what it offers if nothing is.

    Raises:
        ConfigError: as `check_files`.
    """
    documents = _read(path)
    if len(documents) == 1 and "apiVersion" not in documents[0]:
        return check_launcher_file(path, documents[0])
    try:
        problems, nodes = check_manifests(documents)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return problems, _offered("Kubernetes", nodes)


def check_launcher_file(path: Path, written: Mapping[str, Any]) -> tuple[list[Problem], str]:
    """`check` for a file for `ray up` that has been read."""
    file = launcher_file.read(path, written)
    if isinstance(file, Problem):
        return [file], ""
    return check_launcher(file), _offered(file.provider, offers(file))


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a cluster file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; is this a YAML file?") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct it") from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise ConfigError(f"{path}: holds no cluster; it must be a mapping as in cluster.yaml")
    return documents


def _offered(provider: str, nodes: Sequence[roles.Offer]) -> str:
    room = {role.name: sum(offer.nodes for offer in nodes if offer.takes(role)) for role in roles.ROLES}
    shards = sum(offer.nodes * offer.resources.get(roles.REPLAY, 0) for offer in nodes)
    return (
        f"good, for {provider}; nodes for the learner: {room['the learner']}, "
        f"for actors: {room['rollout actors']}, room for shards: {shards:g}"
    )
