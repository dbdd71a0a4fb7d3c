"""`headrace serve-replay` as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from replay_server.errors import WorkerDied
from replay_server.parent_process import VARIABLE

_SERVING, _METRICS = "serving replay at ", "; metrics at http://"
_MOST_LINES = 1000
_LAST_WORDS_SECONDS = 5.0


class ShardProcess:
    """Started at once; serves at `address`. It ends with the process, and the thread, that made it.

    Args:
        config_file: of the shard.
        descriptors: of this process, that it is to have too.

    Raises:
        WorkerDied: it ended before it served.
    """

    def __init__(self, config_file: Path, descriptors: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "serve-replay", str(config_file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            env={**os.environ, VARIABLE: str(os.getpid())},
            start_new_session=True,  # Ctrl-C in the terminal is the driver's to handle
        )
        self._said: deque[str] = deque(maxlen=_MOST_LINES)
        self._listener = threading.Thread(target=self._listen, name="shard said", daemon=True)
        self._listener.start()
        served = self.serving = self._serving_line()
        """What it says once it serves: where, and the memory it will take; "" when it ended before."""
        self.address = served.removeprefix(_SERVING).split()[0] if served else ""
        self.metrics = served.partition(_METRICS)[2].partition("/")[0] or None
        """HOST:PORT for Prometheus, where its config asks for it."""
        if not self.address:
            self._listener.join(_LAST_WORDS_SECONDS)
            said = self.take_said()
            error = WorkerDied(f"a replay shard did not start: {(said or ['no message'])[-1]}")
            error.add_note("\n".join(said))
            raise error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def take_said(self) -> list[str]:
        """Lines it wrote to standard error since the last call, the newest thousand at most."""
        return [self._said.popleft() for _ in range(len(self._said))]

    def ended(self, timeout_s: float) -> str | None:
        """How it has ended; None when it is still there after so many seconds."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._listener.join(_LAST_WORDS_SECONDS)
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

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._said.append(line.decode(errors="replace").rstrip())

    def _serving_line(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode(errors="replace")
            if text.startswith(_SERVING):
                return text.strip()
        return ""
