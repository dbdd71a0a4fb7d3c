"""Two hosts on one machine: network namespaces with a cable between them that can be cut, thinned out and throttled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PORT = 7400
_NUMBER = os.getpid() % 200


class Cable:
    """Between the shard's host and the clients' host.

    Attributes:
        shard_side, client_side: what a command runs under there.
        address: of the shard.
    """

    def __init__(self, shard_host: str, client_host: str) -> None:
        self.shard_side = ("ip", "netns", "exec", shard_host)
        self.client_side = ("ip", "netns", "exec", client_host)
        self.address = f"10.77.{_NUMBER}.1:{PORT}"

    def rules(self, *rules: str) -> None:
        """nftables rules for what arrives at (`input`) and leaves (`output`) the shard's host; none lets all pass."""
        lines = ["flush ruleset"]
        for chain in ("input", "output"):
            lines += [f"add table inet fault_{chain}"]
            lines += [f"add chain inet fault_{chain} c {{ type filter hook {chain} priority 0; }}"]
            lines += [f"add rule inet fault_{chain} c {r.partition(' ')[2]}" for r in rules if r.startswith(chain)]
        _run([*self.shard_side, "nft", "-f", "-"], "\n".join(lines) + "\n")

    def throttle(self, rate: str | None) -> None:
        """Limit both directions to a rate of `tc`, for example 4mbit; None for no limit."""
        for side, device in ((self.shard_side, "shard"), (self.client_side, "client")):
            if rate is None:
                _run([*side, "tc", "qdisc", "del", "dev", device, "root"])
            else:
                tbf = ["tbf", "rate", rate, "burst", "32kbit", "latency", "400ms"]
                _run([*side, "tc", "qdisc", "add", "dev", device, "root", *tbf])


@contextmanager
def two_hosts() -> Iterator[Cable]:
    """A cable; everything is gone afterwards. Skips the test, with the reason, where this is not possible."""
    for tool in ("ip", "nft", "tc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    names = [f"headrace{_NUMBER}{side}" for side in "sc"]
    try:
        try:
            _connect(*names)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
        yield Cable(*names)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _connect(shard_host: str, client_host: str) -> None:
    for name in (shard_host, client_host):
        _run(["ip", "netns", "add", name])
        _run(["ip", "-n", name, "link", "set", "lo", "up"])
    ends = ["type", "veth", "peer", "name", "client", "netns", client_host]
    _run(["ip", "-n", shard_host, "link", "add", "shard", *ends])
    for name, device, last in ((shard_host, "shard", 1), (client_host, "client", 2)):
        _run(["ip", "-n", name, "address", "add", f"10.77.{_NUMBER}.{last}/24", "dev", device])
        _run(["ip", "-n", name, "link", "set", device, "up"])
    _run(["ip", "netns", "exec", shard_host, "nft", "list", "ruleset"])


def _run(command: list[str], text: str | None = None) -> None:
    subprocess.run(command, input=text, capture_output=True, text=True, check=True)
