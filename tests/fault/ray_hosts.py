"""Ray over two hosts: one with driver, learner and actors, the other with the shards, and a run of `headrace train`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.logs import metrics
from kit.processes import command_line, processes_with

from fault.namespaces import Cable, two_hosts
from fault.processes import ROOT

RAY = str(Path(sys.executable).with_name("ray"))
HEAD_PORT = 6380
TOKEN = "a-token-of-the-user-of-this-test"
_SMALL_STORE = "--object-store-memory=80000000"


def environment(place: Path) -> dict[str, str]:
    """Of everything on both hosts: Ray's own token, made once."""
    token = place / "ray_token"
    if not token.exists():
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HEADRACE_"))}
    return ours | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "HEADRACE_TOKEN": TOKEN,
    }


_MARK = "HEADRACE_TEST_NODE"


class Node:
    """A node of Ray; ends with its host.

    Args:
        host: what a command runs under there.
        arguments: of `ray start`.
        env: of everything on the node.
        log: what it says.
        mounts: directory -> MiB of an empty disk that hides it, for this node alone.
    """

    def __init__(
        self,
        host: Sequence[str],
        arguments: Sequence[str],
        env: dict[str, str],
        log: Path,
        mounts: Mapping[Path, int] | None = None,
    ) -> None:
        self._log = log
        disks = [f"mount -t tmpfs -o size={size}m none {place}" for place, size in (mounts or {}).items()]
        prelude = ["bash", "-c", " && ".join([*disks, 'exec "$@"']), "bash"]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*host, *prelude, RAY, "start", "--block", _SMALL_STORE, *arguments],
                env={**env, _MARK: str(log)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        """Of everything that runs on the node."""
        return processes_with(_MARK, str(self._log))

    def signal(self, number: int) -> None:
        """To everything on the node at once."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait_until_there(self, seconds: float = 150.0) -> None:
        deadline = time.monotonic() + seconds
        while "Ray runtime started" not in self._log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.05)


class TwoHosts:
    """Both with a node of Ray.

    Attributes:
        cable: between them.
        place: directory that both see, with a short name, because sockets lie below it.
        runs: directory of runs below it.
        env: of every process.
    """

    def __init__(self, cable: Cable, place: Path) -> None:
        self.cable, self.place, self.env = cable, place, environment(place)
        self.runs = place / "runs"
        self.runs.mkdir()

    def start_head(self, processors: int = 3, *, takes_jobs: bool = False) -> None:
        """The head, with processors and the learner's place; its dashboard, which takes jobs, on loopback."""
        cable, place = self.cable, self.place
        head = [
            "--head",
            f"--port={HEAD_PORT}",
            f"--node-ip-address={cable.client_ip}",
            f"--include-dashboard={takes_jobs}",
        ]
        head += [f"--temp-dir={place}/a", f"--num-cpus={processors}", '--resources={"learner": 1}']
        Node(cable.client_side, head, self.env, place / "head.log").wait_until_there()

    def start_node(self, processors: int = 0, shards: int = 0, mounts: Mapping[Path, int] | None = None) -> Node:
        """Another node, on the host of the shards."""
        offers = [f"--num-cpus={processors}", f'--resources={{"replay": {shards}}}'] if shards else []
        arguments = offers or [f"--num-cpus={processors}"]
        where = [f"--address={self.cable.client_ip}:{HEAD_PORT}", f"--node-ip-address={self.cable.shard_ip}"]
        count = len(list(self.place.glob("node-*.log")))
        node = Node(
            self.cable.shard_side,
            [*where, f"--temp-dir={self.place}/{count}", *arguments],
            self.env,
            self.place / f"node-{count}.log",
            mounts,
        )
        node.wait_until_there()
        return node

    def train(self, config: str, *settings: str) -> Training:
        """`headrace train` on the head."""
        return Training(self, config, settings)

    def ask(self, program: str, *arguments: str) -> Any:
        """The JSON that a program of this package prints, run on the head's host."""
        command = [*self.cable.client_side, sys.executable, "-m", program, *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, cwd=self.place)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


class Training:
    """`headrace train` with its driver on the head."""

    def __init__(self, hosts: TwoHosts, config: str, settings: Sequence[str]) -> None:
        self._hosts = hosts
        self.directory = hosts.runs / "run"
        self._errors = hosts.place / "train.log"
        where = ["--ray.address", f"{hosts.cable.client_ip}:{HEAD_PORT}", "--ray.placement", "roles"]
        command = [*hosts.cable.client_side, sys.executable, "-m", "headrace", "train", config, *where, *settings]
        with self._errors.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, "--run-dir", str(self.directory)],
                env=hosts.env,
                cwd=hosts.place,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What a person sees."""
        return self._errors.read_text(errors="replace")

    def rows(self) -> list[dict[str, Any]]:
        """Of its metrics, whole ones."""
        return metrics(self.directory)

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for something to come true while the run goes on."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the run ended with {self.process.returncode}: {self.said[-3000:]}"
            assert time.monotonic() < deadline, self.said[-3000:]
            time.sleep(0.1)

    def env_steps(self) -> int:
        """As the newest row has it."""
        return int(self.rows()[-1]["env_steps"]) if self.rows() else 0

    def gets_on(self, steps: int, seconds: float = 120.0) -> None:
        """Wait until it has made so many steps more."""
        goal = self.env_steps() + steps
        self.until(lambda: self.env_steps() > goal, seconds)

    def interrupt(self, seconds: float = 60.0) -> dict[str, Any]:
        """Ctrl-C; the content of `result.json`."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(seconds)
        assert code == 0, self.said[-3000:]
        document: dict[str, Any] = json.loads((self.directory / "result.json").read_text())
        return document

    def shards(self) -> dict[int, str]:
        """Process id -> HOST:PORT of every shard."""
        listening = ["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"]
        shown = subprocess.run([*self._hosts.cable.shard_side, *listening], capture_output=True, text=True).stdout
        found = re.findall(r"^\S+\s+\d+\s+\d+\s+(\S+).*pid=(\d+)", shown, re.MULTILINE)
        places = {int(pid): re.sub(r"^\[::ffff:(.*)\]", r"\1", place) for place, pid in found}
        mine = [pid for pid in self._hosts.cable.pids("shard") if "serve-replay" in command_line(pid)]
        return {pid: places[pid] for pid in mine if pid in places}

    def look(self) -> list[dict[str, Any]]:
        """What the shards say to who has the token."""
        places = sorted(self.shards().values())
        told = self._hosts.ask("headrace", "status", "--json", "--tls-ca", str(self.authority()), *places)
        shards: list[dict[str, Any]] = told["shards"]
        return shards

    def authority(self) -> Path:
        """A copy of the certificate that its shards' are signed with, which lies in the driver's memory alone."""
        copy = self._hosts.place / "ca.pem"
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            if os.readlink(descriptor).startswith("/memfd:ca "):
                copy.write_bytes(descriptor.read_bytes())
                return copy
        raise AssertionError("the driver holds no certificate")


@contextmanager
def two_ray_hosts() -> Iterator[TwoHosts]:
    """Skips as `two_hosts`; everything is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
    try:
        with two_hosts() as cable:
            yield TwoHosts(cable, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
