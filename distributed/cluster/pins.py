"""Versions: what constraints.txt pins, and what commands, images and requirements ask for beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import headrace
from distributed.cluster.problem import Problem
from replay_server.errors import ConfigError

_WITH_VALUE = {"-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-e", "--editable"}
_RAY_IMAGE = re.compile(r"(?:^|/)rayproject/ray$")


def constraints() -> dict[str, str]:
    """Package name in its canonical form -> version, of the checkout's constraints.txt.

    Raises:
        ConfigError: there is none; only a checkout has it.
    """
    path = Path(headrace.ROOT) / "constraints.txt"
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; cluster files are checked from a checkout of headrace")
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def requirements(command: str) -> Iterator[str]:
    """What the `pip install` commands in a line of shell install, options left out."""
    for part in re.split(r"&&|\|\||;|\n", command):
        _, installs, rest = part.partition("pip install")
        if not installs:
            continue
        words = iter(shlex.split(rest, comments=True))
        for word in words:
            if word in _WITH_VALUE:
                next(words, None)
            elif not word.startswith("-"):
                yield word


def unpinned(field: str, command: str, pinned: Mapping[str, str]) -> Iterator[Problem]:
    """What a command installs in another version than constraints.txt, or in none in particular."""
    for text in requirements(command):
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            yield Problem(
                field, f"pip install {text}: name packages as NAME==VERSION, so that every node gets the same"
            )
            continue
        version = pinned.get(canonicalize_name(wanted.name))
        if version is None:
            yield Problem(field, f"{wanted.name} is not in constraints.txt; add it there or leave it out here")
        elif str(wanted.specifier) != f"=={version}" or wanted.url:
            asked = f"is {wanted.specifier}" if wanted.specifier else "has no version"
            yield Problem(field, f"{wanted.name} {asked}; constraints.txt has {wanted.name}=={version}")


def image(field: str, name: str, pinned: Mapping[str, str]) -> Iterator[Problem]:
    """A container image that may change under its name, or that holds another Ray."""
    repository, colon, tag = name.partition("@")[0].rpartition(":")
    if "@sha256:" in name:
        return
    if not colon or "/" in tag or tag.startswith(("latest", "nightly")):
        yield Problem(field, f"{name!r} may be another image tomorrow; give a tag with a version, or a digest")
    elif _RAY_IMAGE.search(repository) and tag.partition("-")[0] != pinned["ray"]:
        yield Problem(field, f"{name!r} holds another Ray than constraints.txt; take {repository}:{pinned['ray']}-...")
