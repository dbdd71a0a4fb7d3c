"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

import distributed

_PACKAGES = ("numpy", "numba", "grpcio", "h5py", "msgspec", "torch")


class Machine(Struct, frozen=True):
    """`load` is the mean number of runnable processes over the last minute when the run began."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    versions: dict[str, str]
    load: float

    @staticmethod
    def here() -> Machine:
        return Machine(
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            versions={"headrace": distributed.__version__, **{name: _version(name) for name in _PACKAGES}},
            load=round(os.getloadavg()[0], 2),
        )

    @property
    def text(self) -> str:
        """For the end of a sentence."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.cores} cores ({self.cpu}), {self.memory_bytes / 2**30:.0f} GiB, {self.system}, "
            f"Python {self.python}, {versions}; load at the start {self.load:.1f}"
        )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
