"""Two hosts on one machine: network namespaces with a cable between them that can be cut, thinned out and throttled."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PORT = 7400
_NUMBER = os.getpid() % 200


class Cable:
    """Between the shard's host and the clients' host.

    Attributes:
        shard_side, client_side: what a command runs under there.
        shard_ip, client_ip: their addresses.
        address: of a shard at the usual port.
    """

    def __init__(self, shard_host: str, client_host: str) -> None:
        self._hosts = {"shard": shard_host, "client": client_host}
        self.shard_side = ("ip", "netns", "exec", shard_host)
        self.client_side = ("ip", "netns", "exec", client_host)
        self.shard_ip, self.client_ip = f"10.77.{_NUMBER}.1", f"10.77.{_NUMBER}.2"
        self.address = f"{self.shard_ip}:{PORT}"

    def pids(self, side: str) -> list[int]:
        """Everything that runs on the host `shard` or `client`."""
        return _pids(self._hosts[side])

    def cut(self) -> None:
        """Nothing passes any more, both ways; what a host says to itself does. `rules()` heals it."""
        self.rules('input iifname "shard" drop', 'output oifname "shard" drop')

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
    _remove_left_over()
    names = [f"headrace{os.getpid()}{side}" for side in "sc"]
    try:
        try:
            _connect(*names)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
        yield Cable(*names)
    finally:
        for name in names:
            _remove(name)


def _remove_left_over() -> None:
    """Namespaces of tests that were killed, and what still runs in them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for name, pid in re.findall(r"^(headrace(\d+)[sc])\b", listed, re.MULTILINE):
        if not os.path.exists(f"/proc/{pid}"):
            _remove(name)


def _remove(name: str) -> None:
    """A namespace, after everything in it."""
    deadline = time.monotonic() + 15.0
    while (pids := _pids(name)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _pids(name: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


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
