"""What importing each package loads, seen from a clean process; import-linter checks the directions."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def loaded_by(code: str) -> set[str]:
    """Top-level modules in `sys.modules` of a clean interpreter after running `code` in the checkout."""
    report = f"{code}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


def every_module_of(package: str) -> str:
    """Code that imports each module of a package but `__main__`, which would run the program."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return "\n".join(f"import {name.removesuffix('.__init__')}" for name in names if not name.endswith("__main__"))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import replay_server", {"torch", "ray", "gymnasium", "grpc", "numba"}),
        ("import replay_server.specs, replay_server.batches", {"torch", "ray", "gymnasium", "grpc", "numba"}),
        (every_module_of("replay_server"), {"torch", "ray", "gymnasium"}),
        ("import learners", {"ray", "gymnasium", "grpc"}),
        (every_module_of("learners"), {"ray", "gymnasium", "grpc"}),
        (every_module_of("actors"), {"ray", "grpc"}),
        ("import distributed", {"ray", "torch", "gymnasium", "grpc"}),
        ("import distributed.bench.replay, distributed.bench.tables", {"ray", "torch", "gymnasium"}),
        ("import distributed.learner_worker, distributed.ray_weights, distributed.shard_host", {"torch", "gymnasium"}),
        ("import distributed.cli", {"ray", "torch", "gymnasium", "grpc"}),
        ("import headrace", {"ray", "torch", "gymnasium", "grpc", "numpy"}),
    ],
    ids=lambda value: value.splitlines()[0] if isinstance(value, str) else None,
)
def test_heavy_packages_stay_out(code, absent):
    assert not loaded_by(code) & absent


def test_the_check_sees_what_is_loaded():
    assert {"torch", "numpy"} <= loaded_by("import torch")
