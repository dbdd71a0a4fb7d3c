"""A `headrace train` in a process of its own, for benchmarks that look at it from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from distributed.config import ExperimentConfig
from distributed.config_loading import dump_yaml
from distributed.run_directory import RunDirectory
from distributed.stop_signal import StopSignal
from replay_server.errors import WorkerDied

ENDLESS = 10**12
"""Environment steps that no measurement comes to."""

_STOP_S = 120.0


@dataclass(frozen=True)
class ChildRun:
    """The run, its files, and what its driver says."""

    process: subprocess.Popen[bytes]
    files: RunDirectory
    log: Path

    def ended(self) -> bool:
        """Whether it has ended well.

        Raises:
            WorkerDied: it failed; the message has its last words.
        """
        code = self.process.poll()
        if code:
            said = (self.log.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise WorkerDied(f"a run failed: {said}")
        return code is not None

    def wait(self, seconds: float) -> None:
        """Wait for its end.

        Raises:
            WorkerDied: it failed, or goes on after so many seconds.
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise WorkerDied(f"a run had not ended after {seconds:g} s; see what else this machine does") from None
        self.ended()

    def stop(self) -> None:
        """End it as Ctrl-C does, which ends everything of it; by force after two minutes."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def child_run(config: ExperimentConfig, seconds: float) -> Iterator[ChildRun]:
    """Run a config on Ray without evaluations and checkpoints; the run ends with the block, also when that is stopped.

    SIGTERM raises KeyboardInterrupt in the block, as SIGINT does.

    Args:
        config: of the run.
        seconds: of training, after which the run ends by itself: nobody else ends it where this process was killed.
    """
    run = replace(config.run, stop_at_return=None, checkpoint_every_env_steps=0, max_seconds=seconds)
    evaluation = replace(config.evaluation, every_env_steps=0, final_episodes=1)
    with StopSignal(), tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        file, files, log = Path(directory) / "run.yaml", RunDirectory(Path(directory) / "run"), Path(directory) / "log"
        file.write_text(dump_yaml(replace(config, runtime="ray", run=run, evaluation=evaluation)))
        command = [sys.executable, "-m", "headrace", "train", str(file), "--run-dir", str(files.path)]
        with log.open("wb") as output:
            child = ChildRun(subprocess.Popen(command, stdout=output, stderr=output), files, log)
        try:
            yield child
        finally:
            child.stop()
