"""Other people's agents can use our users: Stable-Baselines3 trains on them in a plain script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_its_dqn_trains_on_simulated_users(tmp_path: Path) -> None:
    pytest.importorskip(
        "stable_baselines3", reason="Stable-Baselines3 is in the extra dev; run make test to install it"
    )
    script = ROOT / "examples" / "stable_baselines3_agent.py"
    done = subprocess.run(
        [sys.executable, str(script), "--steps", "600", "--episodes", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"mean return -?\d+\.\d \+- \d+\.\d over 2 users\n", done.stdout)
