"""`headrace serve-replay` as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from replay_server.errors import WorkerDied
from replay_server.parent_process import VARIABLE


class ShardProcess:
    """Started at once; serves at `address`. It ends with the process, and the thread, that made it.

    Args:
        config_file: of the shard.
        log_file: its errors are added to this.
        descriptors: of this process, that it is to have too.

    Raises:
        WorkerDied: it ended before it served.
    """

    def __init__(self, config_file: Path, log_file: Path, descriptors: Sequence[int] = ()) -> None:
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "serve-replay", str(config_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=descriptors,
                env={**os.environ, VARIABLE: str(os.getpid())},
                start_new_session=True,  # Ctrl-C in the terminal is the driver's to handle
            )
        self.address = self._served_at()
        if not self.address:
            reason = (log_file.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise WorkerDied(f"a replay shard did not start: {reason} (log: {log_file})")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self, timeout_s: float) -> str | None:
        """How it has ended; None when it is still there after so many seconds."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return f"it ended by signal {signal.Signals(-code).name}" if code < 0 else f"it ended with code {code}"

    def stop(self, timeout_s: float) -> None:
        """Drain and end it, by force after `timeout_s` seconds."""
        self._process.terminate()
        if self.ended(timeout_s) is None:
            self.kill()

    def kill(self) -> None:
        """End it by force."""
        self._process.kill()
        self._process.wait()

    def _served_at(self) -> str:
        """HOST:PORT once it serves; "" when it ended before."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode(errors="replace")
            if text.startswith("serving replay at "):
                return text.removeprefix("serving replay at ").split()[0]
        return ""
