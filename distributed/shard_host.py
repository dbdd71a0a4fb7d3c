"""A replay shard as a child process of a thin Ray actor. Imports neither torch nor the learners, to start fast."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from replay_server.errors import WorkerDied
from replay_server.parent_process import VARIABLE


class ShardHost:
    """Starts `headrace serve-replay` as a child process and ends it with itself.

    The shard is no Ray worker, so that Ray's memory monitor does not choose it when memory is short.
    """

    def begin(self, config_file: Path, log_file: Path) -> str:
        """Start the shard; returns its HOST:PORT once it serves.

        Raises:
            WorkerDied: it ended before it served.
        """
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "serve-replay", str(config_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, VARIABLE: str(os.getpid())},
                start_new_session=True,  # Ctrl-C in the terminal is the driver's to handle
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode(errors="replace")
            if text.startswith("serving replay at "):
                return text.removeprefix("serving replay at ").split()[0]
        reason = (log_file.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise WorkerDied(f"a replay shard did not start: {reason} (log: {log_file})")

    @property
    def pid(self) -> int:
        """Process id of the shard."""
        return self._process.pid

    def stop(self, timeout_s: float) -> None:
        """Drain and end the shard, by force after `timeout_s` seconds."""
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
