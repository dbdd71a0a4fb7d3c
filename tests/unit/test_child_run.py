"""A run that a benchmark looks at: what it is told to do, how it ends, and that it never stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from kit.runs import experiment

from distributed.child_run import child_run
from distributed.loading import load_experiment
from replay_server.errors import WorkerDied

RUN = """\
#!{python}
import signal, sys, time
from pathlib import Path

place = Path({place!r})

def stop(*_):
    (place / "stopped").touch()
    sys.exit(0)

signal.signal(signal.SIGINT, stop)
(place / "config").write_text(Path(sys.argv[4]).read_text())
(place / "begun").touch()
{then}
"""
BENCH = """\
import sys, time
from pathlib import Path
from kit.runs import experiment
from distributed.child_run import child_run

place, sys.executable = Path(sys.argv[1]), sys.argv[2]
with child_run(experiment("CartPole-v1", 1), 60.0) as child:
    while not (place / "begun").exists():
        time.sleep(0.01)
    print("under way", flush=True)
    time.sleep(60.0)
"""


def program(place: Path, then: str) -> Path:
    """An interpreter that is asked for `-m headrace train FILE ...` and does this instead."""
    file = place / "python"
    file.write_text(RUN.format(python=sys.executable, place=str(place), then=then))
    file.chmod(0o755)
    return file


def test_it_runs_on_ray_without_evaluations_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(program(tmp_path, "")))
    with child_run(msgspec.structs.replace(experiment("CartPole-v1", 1), runtime="serial"), 42.0) as child:
        child.wait(30.0)
        assert child.ended()
    config = load_experiment(tmp_path / "config", ()).config
    assert config.runtime == "ray"
    assert config.run.max_seconds == 42.0  # it ends by itself, whoever is killed
    assert (config.run.checkpoint_every_env_steps, config.evaluation.every_env_steps) == (0, 0)
    assert not child.files.path.parent.exists()


def test_one_that_goes_on_too_long_is_named_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(program(tmp_path, "time.sleep(60.0)")))
    config = experiment("CartPole-v1", 1)
    with pytest.raises(WorkerDied, match=r"had not ended after 1 s"), child_run(config, 60.0) as child:
        assert not child.ended()
        child.wait(1.0)
    assert child.process.poll() is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_stopped_in_order_when_the_bench_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    run = program(tmp_path, "time.sleep(60.0)")
    bench = subprocess.Popen(
        [sys.executable, "-c", BENCH, str(tmp_path), str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    with bench:
        assert bench.stdout is not None and bench.stdout.readline() == b"under way\n"
        bench.send_signal(number)
        assert bench.wait(30.0) != 0
    assert (tmp_path / "stopped").exists()
