"""Amounts of memory as docker, Kubernetes and Ray's command line write them."""

from __future__ import annotations

import re

from replay_server.errors import ConfigError

_DOCKER = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_KUBERNETES = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip


def docker_bytes(text: str) -> int:
    """Bytes of docker's `3g`, `512m`, `1gb`.

    Raises:
        ConfigError: it is no such amount.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", text.strip("'\"").lower())
    if found is None:
        raise ConfigError(f"{text!r} is no amount of memory; write it like 3g")
    return int(float(found[1]) * _DOCKER[found[2]])


def kubernetes_bytes(text: str) -> int:
    """Bytes of Kubernetes' `3Gi`, `500M`.

    Raises:
        ConfigError: it is no such amount.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]|[KMGT]i|)", str(text))
    if found is None:
        raise ConfigError(f"{text!r} is no amount of memory; write it like 3Gi")
    return int(float(found[1]) * _KUBERNETES[found[2]])
